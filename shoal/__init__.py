"""Federated training, simulated on one laptop or run between real sites with the same code."""
