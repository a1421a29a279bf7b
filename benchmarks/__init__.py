"""Benchmarks: shoal beside its peers and its floor. `python -m benchmarks --help` lists them."""
