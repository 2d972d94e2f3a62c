"""The doors: how requests come in."""
