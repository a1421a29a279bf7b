"""The server's part in secure aggregation."""
