"""What an operator sees of a running daemon: logs, metrics, and what is kept out of both."""
