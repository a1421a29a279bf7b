"""What can be found wrong with a scenario before it is run."""
