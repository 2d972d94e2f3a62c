"""Manifests: a request as JSON, its images as JSON Lines or CSV, or a plain directory of images."""
