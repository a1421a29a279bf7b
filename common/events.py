"""Events of a run: one row per round, per message to a client, and per site in the final test.

The rows hold aggregates only (metrics, counts, seconds, bytes). Result files, progress display and
report are made from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Phase = Literal["statistics", "train", "evaluate", "test", "local", "centralised"]
Model = Literal["local", "federated", "centralised"]


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One federated round, after its evaluation.

    Attributes:
        round: starting at 1; 0 is the evaluation of the initial model.
        cohort: clients sampled for training.
        succeeded: clients whose update was aggregated.
        examples: rows trained on, summed over `succeeded`.
        learning_rate: of the clients' optimizer in this round.
        train_loss: example-weighted mean of the clients' mean loss while training; NaN in round 0.
        metrics: validation metric → example-weighted mean over clients, of the model after this
            round; empty where the round was not evaluated.
        best: whether this is the best round so far by the monitored metric; with differential privacy, where
            the metric must not select a round, true for every evaluated round.
        bytes_up: payload from clients to server; an update counts by the length of its encoding, even if a
            process sent the mean over its clients instead.
        bytes_down: payload from server to clients.
        bytes_moved: payload of the replies that crossed processes; 0 if everything ran in one process.
        seconds: wall time since the end of the previous round; phases: the same per phase of
            `common/profiling.py`.
        epsilon: privacy budget spent after this round; NaN without differential privacy.
    """

    round: int
    cohort: int
    succeeded: int
    examples: int
    learning_rate: float
    train_loss: float
    metrics: Mapping[str, float]
    best: bool
    bytes_up: int
    bytes_down: int
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    epsilon: float = math.nan
    bytes_moved: int = 0


@dataclass(frozen=True, slots=True)
class ClientRow:
    """One message to a client and its reply.

    Attributes:
        round: as in `RoundRow`; client: index starting at 0; name: its display name.
        phase: phase of the message.
        examples: rows used; seconds: time in the client; bytes_up and bytes_down: payload.
        metrics: values that the client reported.
        error: why there is no result, or "".
    """

    round: int
    client: int
    name: str
    phase: Phase
    examples: int
    seconds: float
    bytes_up: int
    bytes_down: int
    metrics: Mapping[str, float]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric with its 95 % bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SiteRow:
    """The final test of one client.

    Attributes:
        client, name: as in `ClientRow`.
        train_rows, test_rows: sizes of its splits; -1 if the client did not report them.
        positives: test rows of the positive class (binary task); -1 for other tasks, or if the count
            is based on fewer than preprocessing.min_count rows.
        tests: model → metric → value on this client's test rows. Always has "federated"; "local"
            and "centralised" only with `--compare`.
    """

    client: int
    name: str
    train_rows: int
    test_rows: int
    positives: int
    tests: Mapping[Model, Mapping[str, Interval]]


class Observer(Protocol):
    """Receives each row as it is produced. Called from the driver's main thread."""

    def on_message(self, text: str) -> None:
        """Called with a step outside the rounds, e.g. "statistics from 6 clients"."""
        ...

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> object:
        """Called after each round (round 0: the initial model) with its messages; a result is ignored."""
        ...

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        """Called once with the final test of all clients."""
        ...
