"""Names (categories and words) as hashed buckets: how sites find out what they have in common.

A site marks, in each of `HASHES` rows of buckets, those that its names fall into. The sum over sites says how
many marked a bucket. A name whose bucket is marked by enough sites in *every* row may be told; of others
nothing is ever said. This is a counting Bloom filter over sites (L. Fan, P. Cao, J. Almeida, A. Broder,
"Summary Cache", IEEE/ACM Transactions on Networking 8(3), 2000), with a row of its own for each hash.

Chance that a name which no other site has is told nevertheless: in each row its bucket has to be heavy
because of other names. With h heavy names and m buckets that is at most h / m a row, and the rows are
independent, so (h / m) ** HASHES. `bucket_count` takes m ≥ 8 h, where h is the most names that are kept: at
most 1 / 4,096 if no more names than that are common, and at most 1 / 16 in any case, since clients refuse to
answer where more than `MOST_HEAVY` of a row's buckets are said to be heavy.
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
_LEAST_NAMES: Final = 128  # there may be far more names in common than are kept, where few are


def bucket_count(names: int) -> int:
    """Return the buckets in a row for at most `names` names in common: a power of two, at least 8 · names."""
    return 1 << (_BUCKETS_A_NAME * max(_LEAST_NAMES, names) - 1).bit_length()


def encode(name: str) -> bytes:
    """Return a name as bytes; any text that Python holds has some."""
    return name.encode("utf-8", "surrogatepass")


def hashed(names: Sequence[str], column: str, buckets: int, purpose: str, rows: int) -> NDArray[np.int64]:
    """Return the bucket of each name in each row, (names, rows).

    The hash is BLAKE2b, keyed with the column's name, so that a name falls into unrelated buckets in two
    columns. It is public: it protects nothing by itself.

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
    """Tell for each name whether all its buckets are heavy.

    Args:
        buckets: of each name in each row, (names, rows).
        heavy: (rows, buckets).
    """
    return np.asarray(heavy[np.arange(heavy.shape[0]), buckets].all(axis=1))
