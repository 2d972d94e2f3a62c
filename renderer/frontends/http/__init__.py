"""The third door: the hosted service's HTTP contract, files, webhooks, and the page."""
