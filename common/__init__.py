"""What server, clients and simulations share: config, errors, seeds, records, metrics, models."""
