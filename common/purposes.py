"""Why each kind of message is sent: what an audit log notes beside it.

`PURPOSES` has an entry for each kind in `common/records.py`; a test sees to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flwr.app import ConfigRecord, RecordDict

from shoal.common import records

PURPOSES: Final[Mapping[str, str]] = {
    records.STATISTICS: "statistics for preprocessing, as aggregates",
    records.SUMS: "statistics for preprocessing, as a vector for a sum",
    records.TRIAL: "find the faster way to train",
    records.TRAIN: "train the global model on local rows",
    records.EVALUATE: "evaluate the global model on local validation rows",
    records.TEST: "test a trained model on local test rows",
    records.LOCAL: "train and test a model that stays with the client, to compare",
    records.POOLED: "train on pooled rows, to compare (simulation only)",
    records.SECURE_KEYS: "agree on masks for a secure sum: public keys",
    records.SECURE_SHARES: "agree on masks for a secure sum: shares, sealed for other clients",
    records.SECURE_TRAIN: "train the global model on local rows, the update under masks",
    records.SECURE_VECTOR: "a vector of aggregates under masks, for a secure sum",
    records.SECURE_UNMASK: "take the masks off a secure sum: shares of those that must go",
}
UNKNOWN: Final = "of a kind that shoal does not know"
_ROUND: Final = "server-round"  # where Flower's strategies put it


def purpose(message_type: str, round_number: int | None) -> str:
    """Return why a message is sent, e.g. "round 3: train the global model on local rows".

    Args:
        message_type: of the request, also for its reply.
        round_number: from 0; `None` for a message outside rounds.
    """
    told = PURPOSES.get(message_type, UNKNOWN)
    return told if round_number is None else f"round {round_number}: {told}"


def round_of(request: RecordDict) -> int | None:
    """Return the round that a request belongs to; `None` if it does not say so."""
    for name, key in ((records.CONFIG, _ROUND), (records.SECURE, "round")):
        record = request.get(name)
        found = record.get(key) if isinstance(record, ConfigRecord) else None
        if isinstance(found, int):
            return found
    return None
