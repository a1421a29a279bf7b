"""The server side of a pilot: the gRPC service, the Grid over it, and traffic metrics."""
