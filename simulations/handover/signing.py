"""The operator's key: Ed25519 (RFC 8032), in PEM files as openssl reads and writes them."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shoal.common.errors import IntegrityError, RunError


def new_key(path: Path) -> Ed25519PrivateKey:
    """Create a private key that only its owner may read, and its public key as PATH.pub.

    Raises:
        RunError: the file exists; a key is never overwritten.
    """
    key = Ed25519PrivateKey.generate()  # from the operating system's generator
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secret)
        path.with_name(f"{path.name}.pub").write_bytes(public_pem(key.public_key()))
    except FileExistsError as error:
        raise RunError(f"{path} already exists", hint=f"use --key {path} to sign with it") from error
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    return key


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        RunError: the file cannot be read, is not an Ed25519 key, or other users may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise RunError(f"other users may read the private key {path}", hint=f"chmod 600 {path}")
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"cannot read the private key {path}: {error}",
            hint="expected an Ed25519 key in PEM without a password; `shoal export RUN --new-key FILE` "
            "creates one",
        ) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise RunError(f"{path} is another kind of key; expected Ed25519")
    return found


def read_public(pem: bytes, source: str) -> Ed25519PublicKey:
    """Read a public key; `source` names it in the error.

    Raises:
        RunError: it is not an Ed25519 key in PEM.
    """
    try:
        found = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise RunError(f"{source} is not a public key in PEM") from error
    if not isinstance(found, Ed25519PublicKey):
        raise RunError(f"{source} is another kind of key; expected Ed25519")
    return found


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return a public key as PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a public key in DER, in hexadecimal: what people compare."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hexdigest()


def require_signature(key: Ed25519PublicKey, signature: bytes, content: bytes) -> None:
    """Check a signature.

    Raises:
        IntegrityError: the signature is not by this key over this content.
    """
    try:
        key.verify(signature, content)
    except InvalidSignature as error:
        raise IntegrityError("the signature does not match CHECKSUMS and the public key") from error
