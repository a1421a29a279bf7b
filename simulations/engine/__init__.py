"""The engine: runs Flower ClientApps over a Grid of our own, in process or on runtime Ray workers."""
