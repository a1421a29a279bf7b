"""A hash of what a client was asked, which its masks depend on.

Clients that were asked different things, whose inputs a server might so tell apart, put masks between them
that do not cancel: their sum is noise. After Pasquini, Francati, Ateniese: Eluding Secure Aggregation in
Federated Learning via Model Inconsistency, CCS 2022, section 6.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from shoal.common.arrays import view


def digest(content: RecordDict) -> bytes:
    """Return the SHA-256 of a message's records: the same for the same content, however it travelled."""
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
