"""Keys that two clients agree on through the server, and what is sealed with them.

X25519 (RFC 7748) gives two clients a common secret, HKDF-SHA256 (RFC 5869) makes of it a key for one use:
its info names the purpose, the session and both public keys, so that no key ever serves twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import DisclosureError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_LABEL: Final = b"shoal secure aggregation 1 "


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private X25519 key and its public one, 32 bytes each."""

    private: bytes
    public: bytes

    @classmethod
    def new(cls) -> KeyPair:
        """Return a new pair, drawn by the operating system."""
        return cls.of(os.urandom(KEY_BYTES))

    @classmethod
    def of(cls, private: bytes) -> KeyPair:
        """Return the pair of a private key."""
        return cls(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()})"  # a private key shall not end up in a log


def exchange(private: bytes, public: bytes) -> bytes:
    """Return the X25519 secret of a private and another's public key, 32 bytes.

    Raises:
        DisclosureError: the public key is none, or of low order, with which the secret would be known.
    """
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError as error:
        raise DisclosureError("a public key in secure aggregation is not one that hides anything") from error


def derive(secret: bytes, info: bytes, *, salt: bytes | None = None, length: int = KEY_BYTES) -> bytes:
    """Return `length` bytes by HKDF-SHA256."""
    return HKDF(SHA256(), length, salt, info).derive(secret)


def mask_key(private: bytes, own_public: bytes, public: bytes, session: bytes) -> bytes:
    """Return the key of the mask between two clients, the same for both.

    Args:
        private, own_public: of one; public: of the other; session: id.

    Raises:
        DisclosureError: as `exchange`.
    """
    first, second = sorted((own_public, public))
    return derive(exchange(private, public), _LABEL + b"mask " + session + first + second)


@dataclass(frozen=True, slots=True)
class Channel:
    """What one client can send another through the server, unread and unchanged, once in a session.

    Attributes:
        key: AES-256-GCM; sender, receiver: client indices, which are authenticated too.
    """

    key: bytes
    sender: int
    receiver: int

    @classmethod
    def sending(cls, own: KeyPair, public: bytes, session: bytes, me: int, other: int) -> Channel:
        """Return the channel from client `me` with the key pair `own` to `other` with `public`."""
        info = _LABEL + b"share " + session + own.public + public
        return cls(derive(exchange(own.private, public), info), me, other)

    @classmethod
    def receiving(cls, own: KeyPair, public: bytes, session: bytes, me: int, other: int) -> Channel:
        """Return the channel from `other` to `me`."""
        info = _LABEL + b"share " + session + public + own.public
        return cls(derive(exchange(own.private, public), info), other, me)

    def seal(self, text: bytes) -> bytes:
        """Return a text encrypted and authenticated, with its nonce before it."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, text, self._about)

    def open(self, sealed: bytes) -> bytes | None:
        """Return what was sealed; `None` if anybody has changed it, or sealed it for another."""
        try:
            return AESGCM(self.key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._about)
        except (InvalidTag, ValueError):
            return None

    @property
    def _about(self) -> bytes:
        return f"{self.sender}>{self.receiver}".encode()

    def __repr__(self) -> str:
        return f"Channel({self.sender}>{self.receiver})"
