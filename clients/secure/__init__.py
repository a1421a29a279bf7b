"""The client's side of secure aggregation: `SecureClient` answers the stages of a session."""

from shoal.clients.secure.protocol import SecureClient

__all__ = ["SecureClient"]
