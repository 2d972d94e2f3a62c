"""Encoders: one seam, and the encoders behind it."""
