"""Shamir's secret sharing over a prime field.

Source: Shamir: How to Share a Secret, Communications of the ACM 22(11), 1979.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final

PRIME: Final = 2**256 + 297  # the least prime above 2^256: any 32 bytes are a secret
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33


def split(
    secret: int,
    threshold: int,
    points: Sequence[int],
    *,
    prime: int = PRIME,
    draw: Callable[[int], int] = secrets.randbelow,
) -> list[int]:
    """Split a secret into shares; any `threshold` of them recover it, and fewer reveal nothing.

    Args:
        secret: in [0, prime); threshold: from 1 to the number of points.
        points: where the polynomial is evaluated, one per share: distinct and not 0 modulo the prime.
        prime: of the field.
        draw: n → a uniform number in [0, n); each secret takes threshold - 1 of them.

    Returns:
        The shares, in the order of the points.

    Raises:
        ValueError: an argument is outside these bounds.
    """
    if not 0 <= secret < prime:
        raise ValueError("the secret is outside the field")
    if not 1 <= threshold <= len(points):
        raise ValueError(f"{len(points)} shares cannot have a threshold of {threshold}")
    _check(points, prime)
    coefficients = [secret, *(draw(prime) for _ in range(threshold - 1))][::-1]
    shares = []
    for x in points:
        y = 0
        for coefficient in coefficients:
            y = (y * x + coefficient) % prime
        shares.append(y)
    return shares


def combine(shares: Mapping[int, int], *, prime: int = PRIME) -> int:
    """Recover the secret from shares, by Lagrange's formula at 0.

    Too few shares, or wrong ones, give a wrong number without an error.

    Args:
        shares: point → share, at least as many as the threshold; prime: of the field.

    Raises:
        ValueError: there are none, or points are 0 or the same modulo the prime.
    """
    points = list(shares)
    if not points:
        raise ValueError("there are no shares")
    _check(points, prime)
    secret = 0
    for x in points:
        above, below = 1, 1
        for other in points:
            if other != x:
                above = above * other % prime
                below = below * (other - x) % prime
        secret += shares[x] * above * pow(below, -1, prime)
    return secret % prime


def _check(points: Sequence[int], prime: int) -> None:
    residues = {x % prime for x in points}
    if 0 in residues or len(residues) < len(points):
        raise ValueError("the points of shares must be distinct and not 0")


def secret_to_int(secret: bytes) -> int:
    """Return the field element that represents 32 bytes."""
    return int.from_bytes(secret)


def int_to_secret(number: int) -> bytes | None:
    """Return the 32 bytes that a field element represents; `None` for the few that represent none."""
    return number.to_bytes(SECRET_BYTES) if number < 2 ** (8 * SECRET_BYTES) else None


def share_to_bytes(share: int) -> bytes:
    """Return a share as 33 bytes, big-endian."""
    return share.to_bytes(SHARE_BYTES)


def share_from_bytes(share: bytes) -> int:
    """Return the share in 33 bytes.

    Raises:
        ValueError: there are not 33 bytes, or they represent no element of the field.
    """
    number = int.from_bytes(share)
    if len(share) != SHARE_BYTES or number >= PRIME:
        raise ValueError("these bytes are not a share")
    return number
