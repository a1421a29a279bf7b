"""Federated training on one laptop, and for real with the same code."""
