"""The format of messages between processes on different machines."""
