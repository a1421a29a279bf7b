"""A hash of the request to a client; the client's masks depend on it.

If a server sends clients different requests, to isolate their inputs, the masks between these clients do not
cancel: their sum is noise. After Pasquini, Francati, Ateniese: Eluding Secure Aggregation in Federated
Learning via Model Inconsistency, CCS 2022, section 6.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from shoal.common.arrays import view


def digest(content: RecordDict) -> bytes:
    """Return the SHA-256 of a message's records: the same for the same content, on any transport."""
    found = sha256()
    for name, record in sorted(content.items()):
        found.update(repr(name).encode())
        for key, value in sorted(record.items()):
            if isinstance(record, ArrayRecord):
                numbers = np.ascontiguousarray(view(record[key]))
                found.update(repr((key, numbers.dtype.name, numbers.shape)).encode())
                found.update(numbers.reshape(-1).view(np.uint8).data)
            else:
                found.update(repr((key, value)).encode())
    return found.digest()
