"""Keys that two clients agree on through the server, and encryption with them.

X25519 (RFC 7748) gives two clients a common secret, from which HKDF-SHA256 (RFC 5869) derives a key per use:
its info contains the purpose, the session and both public keys, so that no key is ever used twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shoal.common.errors import DisclosureError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_LABEL: Final = b"shoal secure aggregation 1 "


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private X25519 key and its public one, 32 bytes each."""

    private: bytes = field(repr=False)  # keeps it out of logs
    public: bytes
    _key: X25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def new(cls) -> KeyPair:
        """Return a new pair from the operating system's generator."""
        return cls.of(os.urandom(KEY_BYTES))

    @classmethod
    def of(cls, private: bytes) -> KeyPair:
        """Return the pair of a private key."""
        key = X25519PrivateKey.from_private_bytes(private)
        return cls(private, key.public_key().public_bytes_raw(), key)

    def exchange(self, public: bytes) -> bytes:
        """Return the X25519 secret with another's public key, 32 bytes.

        Raises:
            DisclosureError: the public key is invalid, or of low order, which would make the secret known.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise DisclosureError(
                "a public key in secure aggregation is invalid, or makes the shared secret predictable"
            ) from error


def derive(secret: bytes, info: bytes, *, salt: bytes | None = None, length: int = KEY_BYTES) -> bytes:
    """Return `length` bytes by HKDF-SHA256."""
    return HKDF(SHA256(), length, salt, info).derive(secret)


def mask_key(own: KeyPair, public: bytes, session: bytes, asked: bytes) -> bytes:
    """Return the key of the mask between two clients, the same for both.

    Args:
        own: of one client; public: of the other; session: id.
        asked: digest of the request; clients with different requests get different keys.

    Raises:
        DisclosureError: as `KeyPair.exchange`.
    """
    first, second = sorted((own.public, public))
    return derive(own.exchange(public), _LABEL + b"mask " + session + asked + first + second)


def channel_keys(own: KeyPair, public: bytes, session: bytes) -> tuple[bytes, bytes]:
    """Return the keys of the channels to and from another client; arguments and errors as of `mask_key`."""
    secret, label = own.exchange(public), _LABEL + b"share " + session
    return derive(secret, label + own.public + public), derive(secret, label + public + own.public)


@dataclass(frozen=True, slots=True)
class Channel:
    """An encrypted and authenticated channel from one client to another through the server.

    Attributes:
        key: AES-256-GCM, of `channel_keys`; sender, receiver: client indices, which are authenticated too.
    """

    key: bytes = field(repr=False)
    sender: int
    receiver: int

    def seal(self, text: bytes) -> bytes:
        """Return a text encrypted and authenticated, with its nonce before it."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, text, self._about)

    def open(self, sealed: bytes) -> bytes | None:
        """Return the decrypted text; `None` if it was changed, or encrypted for another client."""
        try:
            return AESGCM(self.key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._about)
        except (InvalidTag, ValueError):
            return None

    @property
    def _about(self) -> bytes:
        return f"{self.sender}>{self.receiver}".encode()
