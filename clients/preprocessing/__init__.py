"""What a client computes about its own rows for the federated preprocessing."""
