"""The update, the unit sent by clients: which weights it covers, its encoding, and the mean of updates."""
