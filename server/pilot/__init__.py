"""The server's end of a network: a gRPC service, the Grid over it, and what it measures."""
