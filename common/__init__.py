"""What server, clients and simulations share: config, errors, seeds, records, metrics, models."""

if __name__ != "shoal.common":  # under a second name all of it would load twice
    raise ImportError("the package is shoal.common")
