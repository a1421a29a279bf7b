"""Fits the preprocessing over the clients: asks for aggregates or for sums, and derives the spec."""
