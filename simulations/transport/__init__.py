"""Clients over a network: they dial in over gRPC and mutual TLS, and answer the same Flower messages."""
