"""Checks of a scenario that need more than its sections: registries, combinations of keys, the data."""
