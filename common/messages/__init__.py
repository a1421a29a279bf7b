"""The messages between server and clients: one table of types, each with a closed request and reply."""
