"""Names (categories and words) as hashed buckets: how sites find out which names they have in common.

A site marks, in each of `HASHES` rows of buckets, the buckets of its names. The sum over sites gives the
number of sites that marked each bucket. A name may be reported only if enough sites marked its bucket in
*every* row. This is a counting Bloom filter over sites (L. Fan, P. Cao, J. Almeida, A. Broder, "Summary
Cache", IEEE/ACM Transactions on Networking 8(3), 2000), with a separate row for each hash.

Probability that a name of a single site is reported nevertheless: in each row, its bucket must be heavy
because of other names. With h heavy names and m buckets this is at most h / m per row, and the rows are
independent, so (h / m) ** HASHES. `bucket_count` uses m ≥ 8 h, where h is the maximum number of names kept:
at most 1 / 4,096 if no more names than that are common, and at most 1 / 16 in any case, because clients
refuse to answer if more than `MOST_HEAVY` of a row's buckets are claimed to be heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

HASHES: Final = 4
MOST_HEAVY: Final = 0.5  # of the buckets in a row
_BUCKETS_A_NAME: Final = 8
_LEAST_NAMES: Final = 128  # if few names are kept, far more may be common


def bucket_count(names: int) -> int:
    """Return the number of buckets per row for `names` common names: a power of two, at least 8 · names."""
    return 1 << (_BUCKETS_A_NAME * max(_LEAST_NAMES, names) - 1).bit_length()


def encode(name: str) -> bytes:
    """Return a name as bytes; works for any Python string."""
    return name.encode("utf-8", "surrogatepass")


def hashed(names: Sequence[str], column: str, buckets: int, purpose: str, rows: int) -> NDArray[np.int64]:
    """Return the bucket of each name in each row, (names, rows).

    The hash is BLAKE2b, keyed with the column's name, so that the buckets of a name in two columns are
    unrelated. The key is public, so the hash alone protects nothing.

    Args:
        names: of categories or words; column: that they are in.
        buckets: in a row; purpose: up to 16 bytes, different ones give independent hashes.
        rows: at most 8.
    """
    key = blake2b(encode(column)).digest()
    person = purpose.encode()
    digests = b"".join(
        blake2b(encode(name), digest_size=8 * rows, key=key, person=person).digest() for name in names
    )
    return np.asarray(np.frombuffer(digests, "<u8").reshape(len(names), rows) % np.uint64(buckets), np.int64)


def all_heavy(buckets: NDArray[np.int64], heavy: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether all buckets of each name are heavy.

    Args:
        buckets: of each name in each row, (names, rows).
        heavy: (rows, buckets).
    """
    return np.asarray(heavy[np.arange(heavy.shape[0]), buckets].all(axis=1))
