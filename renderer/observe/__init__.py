"""The logs and the metrics of a running daemon, and the removal of secrets from both."""
