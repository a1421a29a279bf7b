"""Schedulers: when work is dispatched to which clients, and which replies are aggregated together."""
