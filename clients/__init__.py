"""What runs at a site: its shard, local preprocessing and local training."""
