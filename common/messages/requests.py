"""The server's requests to a client: one closed class for each kind.

An optional field has the default `None` and no other, so that parsing and writing a request gives the same
bytes: the masks of secure aggregation depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from flwr.app import ArrayRecord

from shoal.common.messages.names import ARRAYS, FROZEN, SECURE, SERVER_STATE
from shoal.common.messages.schema import arrays, key

ROUND: Final = "server-round"  # the key that Flower's strategies use
CLIP_NORM: Final = "clip-norm"
LEARNING_RATE: Final = "learning-rate"
_MOST: Final = 1e9  # upper limit of learning rates, norms and ranges; more is an error
_HASH_BYTES: Final = 32
_SESSION_BYTES: Final = 16
PASSES: Final = ("numbers", "moments", "names", "counts")  # of summed statistics

ExecutionMode = Literal["stacked", "sequential"]


@dataclass(frozen=True, kw_only=True)
class StatisticsRequest:
    """Requests aggregates of the training rows; has no parameters."""


@dataclass(frozen=True, kw_only=True)
class SumsRequest:
    """Requests one pass of summed statistics; `common/preprocessing/sums/questions.py` reads the values."""

    clips: tuple[int, ...] | None = key("clips", "wholes", "largest count by column", default=None, low=0)
    low: tuple[float, ...] | None = key("low", "numbers", "lower ends of ranges", default=None)
    high: tuple[float, ...] | None = key("high", "numbers", "upper ends of ranges", default=None)
    heavy: bytes | None = key("heavy", "bytes", "buckets shared by several sites, as bits", default=None)
    cells: tuple[int, ...] | None = key("cells", "wholes", "sizes of name tables", default=None, low=0)
    attempts: tuple[int, ...] | None = key("attempts", "wholes", "tries of name tables", default=None, low=0)
    names: str | None = key("names", "text", "names to count, as JSON", default=None)

    pass_name: str = key("pass", "text", "which pass", choices=PASSES)


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """The fields of every request that sends a model."""

    weights: ArrayRecord = arrays(ARRAYS, "the shared weights of the model")
    frozen: ArrayRecord | None = arrays(
        FROZEN, "weights that training never changes, if the site lacks them", optional=True
    )
    frozen_hash: bytes | None = key(
        "frozen-hash",
        "bytes",
        "SHA-256 of the weights that training never changes",
        default=None,
        size=_HASH_BYTES,
    )
    preprocessing: str = key("preprocessing", "text", "the fitted preprocessing, as JSON")


@dataclass(frozen=True, kw_only=True)
class AutotuneRequest(ModelRequest):
    """Requests timing of a round in each execution mode."""

    learning_rate: float = key(LEARNING_RATE, "number", "of the client's optimizer", low=0, high=_MOST)


@dataclass(frozen=True, kw_only=True)
class TrainRequest(ModelRequest):
    """Requests training of the model on local rows for one round."""

    server_state: ArrayRecord | None = arrays(
        SERVER_STATE, "server arrays of the algorithm, e.g. a control variate", optional=True
    )
    round_number: int = key(ROUND, "whole", "the round, or the number of the dispatch", low=1)
    learning_rate: float = key(LEARNING_RATE, "number", "of the client's optimizer", low=0, high=_MOST)
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
        low=1e-30,
        high=_MOST,
    )
    full_weight_rows: float | None = key(
        "full-weight-rows",
        "number",
        "rows from which a client has full weight, under secure aggregation",
        default=None,
        low=1e-30,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(ModelRequest):
    """Requests evaluation of the model on local validation rows."""

    round_number: int = key(ROUND, "whole", "the round; 0 for the initial model", low=0)
    execution_mode: ExecutionMode = key(
        "execution-mode", "text", "that of training: decides how many clients a process evaluates together",
        choices=("stacked", "sequential"),
    )  # fmt: skip
    reduce: bool = key("reduce", "flag", "whether a process may answer for all its clients at once")


@dataclass(frozen=True, kw_only=True)
class TestRequest(ModelRequest):
    """Requests a test of a trained model on local test rows."""

    __test__ = False  # not a pytest class


@dataclass(frozen=True, kw_only=True)
class AloneRequest(ModelRequest):
    """Requests training without a federation, for comparison, on local or (in a simulation) pooled rows."""

    learning_rates: tuple[float, ...] = key(
        "learning-rates", "numbers", "one for each round", low=0, high=_MOST
    )
    class_weights: tuple[float, ...] | None = key(
        "class-weights", "numbers", "weight of each class in the loss", default=None, low=0, high=_MOST
    )


@dataclass(frozen=True, kw_only=True)
class SecureKeysRequest:
    """Opens a session of secure aggregation: requests public keys."""

    session: bytes = key("session", "bytes", "identifies the session", record=SECURE, size=_SESSION_BYTES)


@dataclass(frozen=True, kw_only=True)
class SecureSharesRequest(SecureKeysRequest):
    """Forwards neighbours' public keys; requests shares of secrets, sealed for the neighbours."""

    clients: int = key("clients", "whole", "in the cohort", record=SECURE, low=1)
    threshold: int = key("threshold", "whole", "shares that reconstruct a secret", record=SECURE, low=1)
    neighbours: tuple[int, ...] = key("neighbours", "wholes", "client indices", record=SECURE, low=0)
    mask_keys: tuple[bytes, ...] = key("mask-keys", "byte strings", "of the neighbours", record=SECURE)
    share_keys: tuple[bytes, ...] = key("share-keys", "byte strings", "of the neighbours", record=SECURE)


@dataclass(frozen=True, kw_only=True)
class MaskedInput(SecureKeysRequest):
    """The fields of every request for a masked vector.

    Its encoding and the noise in it are not among them: each client derives them from its own scenario.
    """

    secure_round: int = key(
        "round", "whole", "distinguishes sums with the same purpose", record=SECURE, low=0
    )
    members: tuple[int, ...] = key("members", "wholes", "clients that sent shares", record=SECURE, low=0)


@dataclass(frozen=True, kw_only=True)
class SecureTrainRequest(MaskedInput, TrainRequest):
    """Requests training for one round; the update is sent under masks."""


@dataclass(frozen=True, kw_only=True)
class SecureVectorRequest(SumsRequest, MaskedInput):
    """Requests one pass of summed statistics under masks."""


@dataclass(frozen=True, kw_only=True)
class SecureUnmaskRequest(SecureKeysRequest):
    """Requests the shares that remove the masks from a sum."""

    survivors: tuple[int, ...] = key(
        "survivors", "wholes", "clients whose input is in the sum", record=SECURE, low=0
    )
    dropped: tuple[int, ...] = key(
        "dropped", "wholes", "clients whose input is missing", record=SECURE, low=0
    )
    senders: tuple[int, ...] = key("senders", "wholes", "of the sealed shares", record=SECURE, low=0)
    sealed: tuple[bytes, ...] = key("sealed", "byte strings", "shares for this client", record=SECURE)


def question(request: SumsRequest) -> dict[str, Any]:
    """Return the values of a pass of statistics by key, as `Questions` reads them."""
    from shoal.common.messages.schema import specs

    named = ("pass_name", "clips", "low", "high", "heavy", "cells", "attempts", "names")
    declared = specs(type(request))
    values = {declared[name].key: getattr(request, name) for name in named}
    return cast("dict[str, Any]", {k: v for k, v in values.items() if v is not None})
