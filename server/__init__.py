"""What coordinates the clients: sampling, strategies, the round loop, evaluation."""

if __name__ != "shoal.server":  # under a second name all of it would load twice
    raise ImportError("the package is shoal.server")
