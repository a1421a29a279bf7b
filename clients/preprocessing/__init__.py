"""What a client computes from its own rows for the federated preprocessing."""
