"""The table of message types: the only place for a type's name, purpose, schemas, refusal and charge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from flwr.app import ConfigRecord, RecordDict

from shoal.common.config import METRICS
from shoal.common.errors import DisclosureError
from shoal.common.events import Phase
from shoal.common.messages import requests
from shoal.common.messages.names import (
    AUTOTUNE,
    CONFIG,
    EPSILON,
    EPSILON_NEXT,
    EXAMPLES,
    KEYS,
    MASKED,
    SECONDS,
    SECURE,
    SHARES,
    STEPS,
    SUMMAND,
    TRACES,
    TRAIN_LOSS,
    UNMASK,
    UPDATE_BYTES,
    WEIGHT,
    WITHIN,
)
from shoal.common.messages.replies import ReplySchema

# Against the budget of `[privacy]`: nothing; the share for statistics; one round of training. Metrics of
# evaluation and tests are not covered by it.
Charge = Literal["nothing", "statistics", "round", "not covered"]


@dataclass(frozen=True, slots=True, eq=False)  # a row of the table, compared by identity
class MessageType:
    """One type of message.

    Attributes:
        name: Flower's message type.
        purpose: why it is sent, for display and audit logs.
        phase: the phase it has in the results.
        request, reply: their schemas.
        site_name: name under which the operator of a site may refuse it; "" if no real site answers it.
        charge: what an answer costs of the privacy budget.
        state: whether the handler reads the client's state, and may change it.
    """

    name: str
    purpose: str
    phase: Phase
    request: type[Any]
    reply: ReplySchema
    site_name: str = ""
    charge: Charge = "nothing"
    state: bool = False


_COUNTS: Final = frozenset({EXAMPLES, SECONDS})
_SECONDS: Final = ReplySchema(frozenset({SECONDS}), (SECONDS,))
_TESTED: Final = (
    _COUNTS | {f"{name}{end}" for name in METRICS for end in ("", "-low", "-high")} | {"positives"}
)
_TRAINED: Final = _COUNTS | {TRAIN_LOSS, STEPS, TRACES, UPDATE_BYTES, WEIGHT, WITHIN, EPSILON, EPSILON_NEXT}
_ROWS: Final = ("train-rows", "validation-rows", "test-rows")
_MODES: Final = ("sequential-seconds", "stacked-seconds")


def _stage(record: str, *keys: str) -> ReplySchema:
    return ReplySchema(frozenset({SECONDS}), (SECONDS,), keys={record: frozenset(keys)})


def _table(types: Iterable[MessageType]) -> dict[str, MessageType]:
    return {one.name: one for one in types}


_MASKED_REPLY: Final = ReplySchema(frozenset({SECONDS}), (SECONDS,), arrays=MASKED)

STATISTICS: Final = MessageType(
    "query.statistics",
    "statistics for preprocessing, as aggregates",
    "statistics",
    requests.StatisticsRequest,
    ReplySchema(_COUNTS | {*_ROWS}, _ROWS, statistics=True),
    "statistics",
    "statistics",
)
SUMS: Final = MessageType(
    "query.sums",
    "statistics for preprocessing, as a vector for a sum",
    "statistics",
    requests.SumsRequest,
    # Not even how many rows a client has.
    ReplySchema(frozenset({SECONDS}), (), arrays=SUMMAND),
    "statistics",
    "statistics",
)
AUTOTUNE_TYPE: Final = MessageType(
    "query.autotune",
    "find the faster execution mode",
    "statistics",
    requests.AutotuneRequest,
    ReplySchema(_COUNTS | {*_MODES}, _MODES, keys={AUTOTUNE: frozenset({"reason"})}),
)
TRAIN: Final = MessageType(
    "train",
    "train the global model on local rows",
    "train",
    requests.TrainRequest,
    ReplySchema(_TRAINED, (EXAMPLES,), update=True, several=True),
    "train",
    "round",
    state=True,
)
EVALUATE: Final = MessageType(
    "evaluate",
    "evaluate the global model on local validation rows",
    "evaluate",
    requests.EvaluateRequest,
    ReplySchema(_COUNTS | set(METRICS), (EXAMPLES,), several=True),
    "evaluate",
    "not covered",
    state=True,
)
TEST: Final = MessageType(
    "evaluate.test",
    "test a trained model on local test rows",
    "test",
    requests.TestRequest,
    ReplySchema(frozenset(_TESTED), (EXAMPLES,)),
    "test",
    "not covered",
    state=True,
)
LOCAL: Final = MessageType(
    "train.local",
    "train and test a model that stays with the client, for comparison",
    "local",
    requests.AloneRequest,
    ReplySchema(frozenset(_TESTED | {STEPS}), (EXAMPLES,)),
    "local",
    "not covered",
)
POOLED: Final = MessageType(
    "train.pooled",
    "train on pooled rows, for comparison (simulation only)",
    "local",
    requests.AloneRequest,
    ReplySchema(frozenset(_COUNTS | {TRAIN_LOSS, STEPS}), (EXAMPLES,), update=True),
)
SECURE_KEYS: Final = MessageType(
    "query.secure_keys",
    "agree on masks for a secure sum: public keys",
    "train",
    requests.SecureKeysRequest,
    _stage(KEYS, "mask", "share"),
    "secure-keys",
)
SECURE_SHARES: Final = MessageType(
    "query.secure_shares",
    "agree on masks for a secure sum: shares, sealed for other clients",
    "train",
    requests.SecureSharesRequest,
    _stage(SHARES, "for", "sealed"),
    "secure-shares",
)
SECURE_TRAIN: Final = MessageType(
    "train.secure",
    "train the global model on local rows, the update under masks",
    "train",
    requests.SecureTrainRequest,
    _MASKED_REPLY,
    "secure-train",
    "round",
)
SECURE_VECTOR: Final = MessageType(
    "query.secure_vector",
    "a vector of aggregates under masks, for a secure sum",
    "statistics",
    requests.SecureVectorRequest,
    _MASKED_REPLY,
    "secure-vector",
    "statistics",
)
SECURE_UNMASK: Final = MessageType(
    "query.secure_unmask",
    "unmask a secure sum: shares of the secrets",
    "train",
    requests.SecureUnmaskRequest,
    _stage(UNMASK, "seeds-of", "seeds", "keys-of", "keys"),
    "secure-unmask",
)

MESSAGES: Final[Mapping[str, MessageType]] = _table(
    [
        STATISTICS,
        SUMS,
        AUTOTUNE_TYPE,
        TRAIN,
        EVALUATE,
        TEST,
        LOCAL,
        POOLED,
        SECURE_KEYS,
        SECURE_SHARES,
        SECURE_TRAIN,
        SECURE_VECTOR,
        SECURE_UNMASK,
    ]
)
_UNKNOWN: Final = "unknown message type"


def message_type(name: str) -> MessageType:
    """Return a message type by its Flower name.

    Raises:
        DisclosureError: there is no such type.
    """
    found = MESSAGES.get(name)
    if found is None:
        raise DisclosureError(f'unknown message type "{name[:40]}"')
    return found


def purpose(name: str, round_number: int | None) -> str:
    """Return why a message is sent, e.g. "round 3: train the global model on local rows".

    Args:
        name: type of the request, also for its reply.
        round_number: from 0; `None` for a message outside rounds.
    """
    known = MESSAGES.get(name)
    text = _UNKNOWN if known is None else known.purpose
    return text if round_number is None else f"round {round_number}: {text}"


def round_of(request: RecordDict) -> int | None:
    """Return the round that a request belongs to; `None` if it names none."""
    for name, key in ((CONFIG, requests.ROUND), (SECURE, "round")):
        record = request.get(name)
        found = record.get(key) if isinstance(record, ConfigRecord) else None
        if isinstance(found, int):
            return found
    return None
