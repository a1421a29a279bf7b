"""The client side: local data, preprocessing and training."""

if __name__ != "shoal.clients":  # under a second name, every module would load twice
    raise ImportError("the package is shoal.clients")
