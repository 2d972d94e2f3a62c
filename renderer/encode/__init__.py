"""Encoders: one seam, and what stands behind it."""
