"""What goes out over the network: which addresses may be reached, the one HTTP client that asks, and downloads."""
