"""What runs at a site: its shard, local preprocessing and local training."""

if __name__ != "shoal.clients":  # under a second name all of it would load twice
    raise ImportError("the package is shoal.clients")
