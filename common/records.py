"""What the messages between server and clients carry, and the gate that holds clients to it.

Requests and replies are Flower `RecordDict`s. `REPLIES` is the whole list of what may leave a client;
`check_reply` refuses everything else, so that a new metric or record has to be added here first.

========================  ==========================  ==========================================
message type              request                     reply
========================  ==========================  ==========================================
query.statistics          config                      metrics, statistics (aggregates only)
query.sums                config                      metrics (seconds), summand (a vector for a sum)
query.trial               arrays, config              metrics (seconds), trial (why one path is ruled out)
train                     arrays, config              arrays (the model's weights), metrics; clients
evaluate                  arrays, config              metrics; clients
evaluate.test             arrays, config              metrics
train.local               arrays, config              metrics (the model stays with the client)
train.pooled              arrays, config              arrays, metrics (simulation only)
query.secure_keys         secure                      metrics (seconds), keys (public ones)
query.secure_shares       secure                      metrics (seconds), shares (sealed for other clients)
train.secure              arrays, config, secure      metrics (seconds), masked (numbers modulo 2^32)
query.secure_vector       config, secure              metrics (seconds), masked (numbers modulo 2^32)
query.secure_unmask       secure                      metrics (seconds), unmask (shares of masks)
========================  ==========================  ==========================================

With privacy.unit = "client" the arrays in a reply to "train" are not the new weights but the clipped update.

A reply to "train" or "evaluate" may stand for several clients of one process: its arrays and metrics are
then their mean by examples, and `clients` is a table of the metrics of each. The last five are the stages of
secure aggregation (docs/secure-aggregation.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from shoal.common.arrays import NumpyArray, count_bytes, view
from shoal.common.config import METRICS
from shoal.common.errors import DisclosureError

STATISTICS: Final = "query.statistics"
SUMS: Final = "query.sums"
TRIAL: Final = "query.trial"
TRAIN: Final = "train"
EVALUATE: Final = "evaluate"
TEST: Final = "evaluate.test"
LOCAL: Final = "train.local"
POOLED: Final = "train.pooled"
SECURE_KEYS: Final = "query.secure_keys"
SECURE_SHARES: Final = "query.secure_shares"
SECURE_TRAIN: Final = "train.secure"
SECURE_VECTOR: Final = "query.secure_vector"
SECURE_UNMASK: Final = "query.secure_unmask"

Weights = NDArray[Any]  # one array of a model's weights

ARRAYS: Final = "arrays"
CONFIG: Final = "config"
CLIENTS: Final = "clients"
TRIAL_RECORD: Final = "trial"
SUMMAND: Final = "summand"  # one array of whole numbers, as common/preprocessing/sums lays it out
SECURE: Final = "secure"  # in requests: the session, and what the stage needs
KEYS: Final = "keys"
SHARES: Final = "shares"
MASKED: Final = "masked"
UNMASK: Final = "unmask"
SECURE_SESSION: Final = "secure-session"  # in a client's `Context.state`, while one is open
METRICS_RECORD: Final = "metrics"
EXAMPLES: Final = "num-examples"
UPDATE_BYTES: Final = "update-bytes"  # of a compressed update, where one stands for it in full
TRACES: Final = "traces"  # graphs that the client's process has made so far
TRAIN_LOSS: Final = "train_loss"  # the key that stock QFedAvg reads
WEIGHT: Final = "weight"  # how much a client's update counts, in [0, 1]; where it is an update that leaves
WITHIN: Final = "within-clip"  # 1/2 for an update within the clipping norm, -1/2 for one that was cut
EPSILON: Final = "epsilon"  # what a client has spent on its rows so far
EPSILON_NEXT: Final = "epsilon-next"  # what it will have spent after another round
CLIP_NORM: Final = "clip-norm"  # in a request: what to cut updates to

_INTERVALS = {f"{name}{end}" for name in METRICS for end in ("", "-low", "-high")}
_COUNTS = {EXAMPLES, "seconds"}
_TESTED = _COUNTS | _INTERVALS | {"positives"}

# message type → metric names that the reply may hold
REPLIES: Final[Mapping[str, frozenset[str]]] = {
    STATISTICS: frozenset(_COUNTS | {"train-rows", "validation-rows", "test-rows"}),
    SUMS: frozenset({"seconds"}),
    TRIAL: frozenset(_COUNTS | {"sequential-seconds", "stacked-seconds"}),
    TRAIN: frozenset(
        _COUNTS | {TRAIN_LOSS, "steps", TRACES, UPDATE_BYTES, WEIGHT, WITHIN, EPSILON, EPSILON_NEXT}
    ),
    EVALUATE: frozenset(_COUNTS | set(METRICS)),
    TEST: frozenset(_TESTED),
    LOCAL: frozenset(_TESTED | {"steps"}),
    POOLED: frozenset(_COUNTS | {TRAIN_LOSS, "steps"}),
    SECURE_KEYS: frozenset({"seconds"}),
    SECURE_SHARES: frozenset({"seconds"}),
    SECURE_TRAIN: frozenset({"seconds"}),
    SECURE_VECTOR: frozenset({"seconds"}),
    SECURE_UNMASK: frozenset({"seconds"}),
}
# stage of secure aggregation → the record beside the metrics, and all keys that it has
_STAGES: Final[Mapping[str, tuple[str, frozenset[str]]]] = {
    SECURE_KEYS: (KEYS, frozenset({"mask", "share"})),
    SECURE_SHARES: (SHARES, frozenset({"for", "sealed"})),
    SECURE_UNMASK: (UNMASK, frozenset({"seeds-of", "seeds", "keys-of", "keys"})),
}
_WITH_ARRAYS: Final = frozenset({TRAIN, POOLED})
SECURE_STAGES: Final = (SECURE_KEYS, SECURE_SHARES, SECURE_TRAIN, SECURE_VECTOR, SECURE_UNMASK)
_MASKED: Final = frozenset({SECURE_TRAIN, SECURE_VECTOR})
_TOGETHER: Final = frozenset({TRAIN, EVALUATE})
_STATISTICS_PREFIX: Final = "statistics"


def weights_to_record(weights: Sequence[NDArray[Any]]) -> ArrayRecord:
    """Pack a model's weights, in the order of `keras.Model.get_weights`."""
    record = ArrayRecord()
    for number, w in enumerate(weights):
        record[str(number)] = NumpyArray(np.asarray(w))
    return record


def record_to_weights(record: ArrayRecord) -> list[NDArray[Any]]:
    """Unpack what `weights_to_record` packed; the arrays may be read-only."""
    return [view(array) for array in record.values()]


def content_bytes(content: RecordDict) -> int:
    """Return the payload of a message in bytes, without its envelope."""
    return sum(_record_bytes(record) for record in content.values())


def _record_bytes(record: ArrayRecord | MetricRecord | ConfigRecord) -> int:
    if isinstance(record, ArrayRecord):
        return count_bytes(record)
    return _config_bytes(record) if isinstance(record, ConfigRecord) else record.count_bytes()


def _config_bytes(record: ConfigRecord) -> int:
    """Count as Flower does, whose own count fails on an empty list (1.41)."""
    total = 0
    for key, value in record.items():
        values = value if isinstance(value, list) else [value]
        total += len(key.encode()) + sum(_value_bytes(v) for v in values)
    return total


def _value_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    return 1 if isinstance(value, bool) else 8


def is_finite(record: ArrayRecord) -> bool:
    """Tell whether every floating-point number of the record is finite."""
    return all_finite(view(array) for array in record.values())


def all_finite(arrays: Iterable[NDArray[Any]]) -> bool:
    """Tell whether every floating-point number of the arrays is finite.

    One that is not makes their sum so; the sum takes a third of the time of a look at each. Where it is
    not finite although all numbers are, because they are huge, each is looked at.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return all(
            bool(np.isfinite(a.sum()) or np.isfinite(a).all())
            for a in arrays
            if np.issubdtype(a.dtype, np.inexact)
        )


def same_shapes(record: ArrayRecord, expected: ArrayRecord) -> bool:
    """Tell whether both records have the same keys, shapes and dtypes."""
    return list(record) == list(expected) and all(
        tuple(record[k].shape) == tuple(expected[k].shape) and record[k].dtype == expected[k].dtype
        for k in record
    )


def with_types_of(record: ArrayRecord, like: ArrayRecord) -> ArrayRecord:
    """Return the record with each array cast to its type in `like`.

    Some strategies compute in float64; the model's own types are what clients get and return.
    """
    return weights_to_record([view(record[k]).astype(like[k].dtype, copy=False) for k in like])


def without_session(state: RecordDict) -> RecordDict:
    """Return a client's state without the secrets of a session of secure aggregation."""
    return RecordDict({name: record for name, record in state.items() if name != SECURE_SESSION})


def check_reply(message_type: str, content: RecordDict, sent: ArrayRecord | None) -> None:
    """Refuse a client's reply that carries anything beyond what its message type allows.

    Args:
        message_type: type of the request, a key of `REPLIES`.
        content: the reply.
        sent: the weights that came with the request; weights that leave have the same shapes.

    Raises:
        DisclosureError: names the record or key, never its value.
    """
    allowed = REPLIES.get(message_type)
    if allowed is None:
        raise DisclosureError(f'a "{message_type}" message may not be answered at all')
    for name, record in content.items():
        if name == METRICS_RECORD and isinstance(record, MetricRecord):
            _check_metrics(message_type, record, allowed)
        elif name == ARRAYS and isinstance(record, ArrayRecord) and message_type in _WITH_ARRAYS:
            if sent is None or not same_shapes(record, sent):
                raise DisclosureError("the arrays in a reply are not shaped as the model's weights")
        elif name == SUMMAND and isinstance(record, ArrayRecord) and message_type == SUMS:
            _check_summand(record)
        elif name == CLIENTS and isinstance(record, ConfigRecord) and message_type in _TOGETHER:
            _check_table(record, allowed)
        elif name == MASKED and isinstance(record, ArrayRecord) and message_type in _MASKED:
            _check_masked(record)
        elif isinstance(record, ConfigRecord) and (name, frozenset(record)) == _STAGES.get(message_type):
            pass
        elif name == TRIAL_RECORD and message_type == TRIAL:
            if set(record) != {"reason"}:
                raise DisclosureError('the record "trial" may carry "reason" only')
        elif not (message_type == STATISTICS and name.startswith(_STATISTICS_PREFIX)):
            raise DisclosureError(f'a reply to "{message_type}" may not carry the record "{name}"')


def _check_metrics(message_type: str, record: MetricRecord, allowed: frozenset[str]) -> None:
    extra = sorted(set(record) - allowed)
    if extra:
        raise DisclosureError(
            f'a reply to "{message_type}" may not carry the metrics {", ".join(extra)}',
            hint="add them to REPLIES in common/records.py if they may leave a client",
        )
    lists = sorted(key for key, value in record.items() if isinstance(value, list))
    if lists:
        raise DisclosureError(
            f'a reply to "{message_type}" may carry single numbers only; these are lists: {", ".join(lists)}'
        )


def _check_summand(record: ArrayRecord) -> None:
    arrays = record_to_weights(record)
    if len(arrays) != 1 or arrays[0].dtype != np.int64 or arrays[0].ndim != 1:
        raise DisclosureError("what is told for a sum is not one vector of whole numbers")


def _check_masked(record: ArrayRecord) -> None:
    arrays = [(array.dtype, len(array.shape)) for array in record.values()]
    if arrays != [("uint32", 1)]:
        raise DisclosureError("a masked input is one vector of numbers modulo 2^32 and nothing else")


def _check_table(record: ConfigRecord, allowed: frozenset[str]) -> None:
    extra = sorted(set(record) - allowed - {"client"})
    if extra:
        raise DisclosureError(f"a table of clients may not carry {', '.join(extra)}")


def metric_record(values: Mapping[str, float]) -> MetricRecord:
    """Return a MetricRecord of single numbers."""
    return MetricRecord(dict(values))


def client_table(clients: Sequence[int], numbers: Sequence[Mapping[str, float]]) -> ConfigRecord:
    """Return the table of what several clients told, which all told the same metrics.

    Args:
        clients: indices; numbers: the metrics of each.
    """
    columns = {name: [row[name] for row in numbers] for name in numbers[0]}
    return ConfigRecord({"client": list(clients), **columns})


def client_rows(table: ConfigRecord) -> dict[int, dict[str, float]]:
    """Return client index → metrics, of what `client_table` made."""
    clients, *columns = (cast("list[float]", values) for values in table.values())
    names = list(table)[1:]
    rows = zip(*columns, strict=True)
    return {
        int(client): dict(zip(names, map(float, row), strict=True))
        for client, row in zip(clients, rows, strict=True)
    }


def config_record(values: Mapping[str, Any]) -> ConfigRecord:
    """Return a ConfigRecord of the values that are not `None`."""
    return ConfigRecord({k: v for k, v in values.items() if v is not None})
