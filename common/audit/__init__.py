"""The chained log of messages, and its check."""
