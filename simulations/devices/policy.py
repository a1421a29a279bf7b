"""The policy of a server, and what came of its jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shoal.common.errors import ConfigError
from shoal.simulations.devices.availability import DAY_S
from shoal.simulations.devices.jobs import Work
from shoal.simulations.devices.profiles import Devices

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PolicyKind = Literal["sync", "deadline", "buffered"]
WAIT_S: Final = 300.0  # between looks for devices, where too few are online
MOST_WAIT_S: Final = 30 * DAY_S


class JobOutcome(IntEnum):
    """What came of a job."""

    USED = 0
    OFFLINE = 1  # the device went offline before its reply arrived
    LATE = 2  # the round ended before the reply arrived, or with too few replies
    STALE = 3  # the reply arrived, from too old a version
    UNUSED = 4  # the run ended first


@dataclass(frozen=True, slots=True)
class ClockPolicy:
    """When the server asks devices, and when it makes the next version of the model.

    Attributes:
        kind: "sync": wait for `clients` replies, or for all that can still come; "deadline": the same, but no
            longer than deadline_s; "buffered": keep `concurrency` devices at work and make a version of every
            `clients` replies (FedBuff: Nguyen et al., AISTATS 2022; with 1, FedAsync).
        clients: replies in a version.
        over_selection: sync and deadline ask this many times `clients`, rounded up; at least 1.
        deadline_s: seconds from the start of a round.
        min_success: fraction of `clients` that a round needs; with fewer it makes no version.
        concurrency: devices at work at a time (buffered).
        max_staleness: versions made since a reply's start; older replies are discarded (buffered).
    """

    kind: PolicyKind
    clients: int
    over_selection: float = 1.0
    deadline_s: float = math.inf
    min_success: float = 0.5
    concurrency: int = 0
    max_staleness: int = 1_000_000

    def check(self) -> None:
        """Refuse a policy that cannot work.

        Raises:
            ConfigError: it lists all problems.
        """
        problems = []
        if self.clients < 1:
            problems.append(f"clients of a version: expected 1 or more, got {self.clients}")
        if self.over_selection < 1:
            problems.append(f"over-selection: expected 1 or more, got {self.over_selection:g}")
        if self.kind == "deadline" and not 0 < self.deadline_s < math.inf:
            problems.append(f"deadline: expected seconds above 0, got {self.deadline_s:g}")
        if self.kind == "buffered" and self.concurrency < 1:
            problems.append(f"concurrency: expected 1 or more devices at work, got {self.concurrency}")
        if problems:
            raise ConfigError(problems, source="the policy")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a timeline follows from.

    Attributes:
        devices: the population; work: of each job; policy: of the server; seed: of the run.
        able: indices of the devices that can hold the model, ascending.
    """

    devices: Devices
    work: Work
    policy: ClockPolicy
    seed: int
    able: Ints


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs in the order in which they were sent; each array is (jobs,).

    Attributes:
        device: index; number: of the job, which keys its draws.
        version: of the model that it started from; made: that its reply went into, 0 for none.
        outcome: a `JobOutcome`; start, end: seconds; the end is that of the reply, or when it was cut off.
    """

    device: Ints
    number: Ints
    version: Ints
    made: Ints
    outcome: Ints
    start: Floats
    end: Floats

    @classmethod
    def joined(cls, blocks: list[Jobs]) -> Jobs:
        """Return several blocks as one."""
        return cls(**{f.name: np.concatenate([getattr(b, f.name) for b in blocks]) for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class Course:
    """The jobs of a run, the times at which it made versions, and its rounds with too few replies."""

    jobs: Jobs
    versions: Floats
    failed_rounds: int = 0
