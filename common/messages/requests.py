"""What the server may ask of a client: one closed class for each kind of request.

A field that may be absent has the default `None` and no other, so that a request which is read and written
again has the same bytes: masks of secure aggregation depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from flwr.app import ArrayRecord

from shoal.common.messages.names import ARRAYS, FROZEN, SECURE, SERVER_STATE
from shoal.common.messages.schema import arrays, key

ROUND: Final = "server-round"  # where Flower's strategies put it
CLIP_NORM: Final = "clip-norm"
_MOST: Final = 1e9  # of learning rates, norms and ranges: more is a mistake
_HASH_BYTES: Final = 32
_SESSION_BYTES: Final = 16

ExecutionMode = Literal["stacked", "sequential"]


@dataclass(frozen=True, kw_only=True)
class StatisticsRequest:
    """Asks for aggregates of the training rows; it says nothing more."""


@dataclass(frozen=True, kw_only=True)
class SumsRequest:
    """Asks for one pass of summed statistics; `common/preprocessing/sums/questions.py` reads the values."""

    pass_name: str = key("pass", "text", "which pass", choices=("numbers", "moments", "names", "counts"))
    asked: int = key("asked", "whole", "clients that are asked", low=1)
    clips: tuple[int, ...] | None = key("clips", "wholes", "largest count by column", default=None, low=0)
    low: tuple[float, ...] | None = key("low", "numbers", "lower ends of ranges", default=None)
    high: tuple[float, ...] | None = key("high", "numbers", "upper ends of ranges", default=None)
    heavy: bytes | None = key("heavy", "bytes", "buckets that several sites share, as bits", default=None)
    cells: tuple[int, ...] | None = key("cells", "wholes", "sizes of name tables", default=None, low=0)
    attempts: tuple[int, ...] | None = key("attempts", "wholes", "tries of name tables", default=None, low=0)
    names: str | None = key("names", "text", "names to count, as JSON", default=None)


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """What every request has that sends a model."""

    weights: ArrayRecord = arrays(ARRAYS, "the shared weights of the model")
    frozen: ArrayRecord | None = arrays(
        FROZEN, "weights that no training changes, where the site has asked for them", optional=True
    )
    frozen_hash: bytes | None = key(
        "frozen-hash",
        "bytes",
        "SHA-256 of the weights that no training changes",
        default=None,
        size=_HASH_BYTES,
    )
    preprocessing: str = key("preprocessing", "text", "the fitted preprocessing, as JSON")


@dataclass(frozen=True, kw_only=True)
class AutotuneRequest(ModelRequest):
    """Asks to measure a round in each execution mode."""

    learning_rate: float = key("learning-rate", "number", "of the client's optimizer", low=0, high=_MOST)


@dataclass(frozen=True, kw_only=True)
class TrainRequest(ModelRequest):
    """Asks to train the model on local rows for one round."""

    server_state: ArrayRecord | None = arrays(
        SERVER_STATE, "the algorithm's arrays of the server, e.g. a control variate", optional=True
    )
    round_number: int = key(ROUND, "whole", "the round, or the number of the dispatch", low=1)
    learning_rate: float = key("learning-rate", "number", "of the client's optimizer", low=0, high=_MOST)
    execution_mode: ExecutionMode = key(
        "execution-mode", "text", "how several clients of a process train", choices=("stacked", "sequential")
    )
    reduce: bool = key("reduce", "flag", "whether a process may answer with the mean over its clients")
    proximal_mu: float | None = key(
        "proximal-mu", "number", "weight of FedProx's proximal term", default=None, low=0, high=_MOST
    )
    class_weights: tuple[float, ...] | None = key(
        "class-weights", "numbers", "weight of each class in the loss", default=None, low=0, high=_MOST
    )
    clip_norm: float | None = key(
        CLIP_NORM,
        "number",
        "L2 norm to clip updates to, under privacy.unit = client",
        default=None,
        low=0,
        high=_MOST,
    )
    full_weight_rows: float | None = key(
        "full-weight-rows",
        "number",
        "rows from which a client counts fully, under secure aggregation",
        default=None,
        low=0,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(ModelRequest):
    """Asks to evaluate the model on local validation rows."""

    round_number: int = key(ROUND, "whole", "the round; 0 for the initial model", low=0)
    reduce: bool = key("reduce", "flag", "whether a process may answer for all its clients at once")


@dataclass(frozen=True, kw_only=True)
class TestRequest(ModelRequest):
    """Asks to test a trained model on local test rows."""

    __test__ = False  # not a test of pytest


@dataclass(frozen=True, kw_only=True)
class AloneRequest(ModelRequest):
    """Asks to train without a federation, for comparison: on local rows, or (simulated) on pooled ones."""

    learning_rates: tuple[float, ...] = key(
        "learning-rates", "numbers", "one for each round", low=0, high=_MOST
    )
    class_weights: tuple[float, ...] | None = key(
        "class-weights", "numbers", "weight of each class in the loss", default=None, low=0, high=_MOST
    )


@dataclass(frozen=True, kw_only=True)
class SecureKeysRequest:
    """Opens a session of secure aggregation: asks for public keys."""

    session: bytes = key("session", "bytes", "names the session", record=SECURE, size=_SESSION_BYTES)


@dataclass(frozen=True, kw_only=True)
class SecureSharesRequest(SecureKeysRequest):
    """Passes neighbours' public keys on; asks for secrets in shares, sealed for them."""

    clients: int = key("clients", "whole", "in the cohort", record=SECURE, low=1)
    threshold: int = key("threshold", "whole", "shares that give a secret back", record=SECURE, low=1)
    neighbours: tuple[int, ...] = key("neighbours", "wholes", "client indices", record=SECURE, low=0)
    mask_keys: tuple[bytes, ...] = key("mask-keys", "byte strings", "of the neighbours", record=SECURE)
    share_keys: tuple[bytes, ...] = key("share-keys", "byte strings", "of the neighbours", record=SECURE)


@dataclass(frozen=True, kw_only=True)
class MaskedInput(SecureKeysRequest):
    """What every request for a masked vector has."""

    secure_round: int = key("round", "whole", "tells sums of one purpose apart", record=SECURE, low=0)
    members: tuple[int, ...] = key(
        "members", "wholes", "clients that have given shares", record=SECURE, low=0
    )
    range: float = key("range", "number", "largest size of one number", record=SECURE, low=1e-30, high=2**32)
    levels: int = key("levels", "whole", "steps from 0 to the range", record=SECURE, low=1, high=2**31)
    noise: tuple[float, ...] | None = key(
        "noise",
        "numbers",
        "standard deviations of the noise in the sum",
        record=SECURE,
        default=None,
        low=0,
        high=_MOST,
    )


@dataclass(frozen=True, kw_only=True)
class SecureTrainRequest(MaskedInput, TrainRequest):
    """Asks to train for one round; the update is sent under masks."""


@dataclass(frozen=True, kw_only=True)
class SecureVectorRequest(MaskedInput):
    """Asks for a vector of aggregates under masks, with the fields of a `SumsRequest` for statistics."""

    purpose: str = key("purpose", "text", "what the vector holds", record=SECURE)
    pass_name: str | None = key("pass", "text", "which pass of statistics", default=None)
    asked: int | None = key("asked", "whole", "clients that are asked", default=None, low=1)
    clips: tuple[int, ...] | None = key("clips", "wholes", "largest count by column", default=None, low=0)
    low: tuple[float, ...] | None = key("low", "numbers", "lower ends of ranges", default=None)
    high: tuple[float, ...] | None = key("high", "numbers", "upper ends of ranges", default=None)
    heavy: bytes | None = key("heavy", "bytes", "buckets that several sites share, as bits", default=None)
    cells: tuple[int, ...] | None = key("cells", "wholes", "sizes of name tables", default=None, low=0)
    attempts: tuple[int, ...] | None = key("attempts", "wholes", "tries of name tables", default=None, low=0)
    names: str | None = key("names", "text", "names to count, as JSON", default=None)


@dataclass(frozen=True, kw_only=True)
class SecureUnmaskRequest(SecureKeysRequest):
    """Asks for the shares that take the masks off a sum."""

    survivors: tuple[int, ...] = key("survivors", "wholes", "whose input is in the sum", record=SECURE, low=0)
    dropped: tuple[int, ...] = key("dropped", "wholes", "whose input is not", record=SECURE, low=0)
    senders: tuple[int, ...] = key("senders", "wholes", "of the sealed shares", record=SECURE, low=0)
    sealed: tuple[bytes, ...] = key("sealed", "byte strings", "shares for this client", record=SECURE)


def question(request: SumsRequest | SecureVectorRequest) -> dict[str, Any]:
    """Return the values of a pass of statistics by their keys, as `Questions` reads them."""
    from shoal.common.messages.schema import specs

    named = ("pass_name", "asked", "clips", "low", "high", "heavy", "cells", "attempts", "names")
    declared = specs(type(request))
    values = {declared[name].key: getattr(request, name) for name in named}
    return cast("dict[str, Any]", {k: v for k, v in values.items() if v is not None})
