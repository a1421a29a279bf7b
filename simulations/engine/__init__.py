"""The engine: runs Flower ClientApps over our own Grid, in this process or on Ray workers."""
