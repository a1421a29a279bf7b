"""When which clients are asked, and which replies are aggregated together."""
