"""The timeline of a federation: who is asked when, from which version of the model, and what comes of it.

Everything follows from seed, devices, work and policy. The server sees only what a real one sees: replies,
and the passing of time. It does not know when a device will go offline, nor how long it will take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from shoal.common.errors import ConfigError
from shoal.simulations.devices.buffered import run_buffered
from shoal.simulations.devices.jobs import Work, durations, fits, spent
from shoal.simulations.devices.policy import ClockPolicy, Floats, Jobs, Setting
from shoal.simulations.devices.profiles import Devices
from shoal.simulations.devices.rounds import run_rounds


@dataclass(frozen=True, slots=True)
class Timeline:
    """All jobs, the versions that they made, and what they took.

    Attributes:
        jobs: in the order in which they were sent.
        bytes_down, bytes_up, joules: what each job took, also if it was cut off, (jobs,).
        versions: time at which each version was made, (versions,), ascending; version k is versions[k - 1].
        failed_rounds: rounds with too few replies.
        excluded: devices whose memory is too small for the model; devices: number of all.
    """

    jobs: Jobs
    bytes_down: Floats
    bytes_up: Floats
    joules: Floats
    versions: Floats
    failed_rounds: int
    excluded: int
    devices: int

    @property
    def hours(self) -> float:
        """Virtual hours until the last version; NaN without any."""
        return float(self.versions[-1] / 3600) if len(self.versions) else math.nan


def simulate(devices: Devices, work: Work, policy: ClockPolicy, versions: int, seed: int) -> Timeline:
    """Return the timeline of a federation.

    Args:
        devices: the population; work: of each job; policy: of the server.
        versions: to make with policy "buffered", else rounds to try; seed: of the run.

    Raises:
        ConfigError: the policy cannot work, no device can hold the model, or too few are online for 30 days.
    """
    policy.check()
    able = np.flatnonzero(fits(devices, work))
    if not len(able):
        raise ConfigError(
            f"training needs {work.memory / 1e6:,.0f} MB, more than any of the {len(devices):,} devices has "
            f"(the largest: {devices.memory.max() / 1e6:,.0f} MB)",
            hint="use a smaller model or a smaller training.batch_size, or other devices",
        )
    if policy.clients > len(able):
        policy = replace(policy, clients=len(able))
    setting = Setting(devices, work, policy, seed, able)
    course = (run_buffered if policy.kind == "buffered" else run_rounds)(setting, versions)
    jobs = course.jobs
    whole = durations(devices, work, seed, jobs.device, jobs.number)
    down, up, joules = spent(jobs.end - jobs.start, whole, devices, work, jobs.device)
    excluded = len(devices) - len(able)
    return Timeline(jobs, down, up, joules, course.versions, course.failed_rounds, excluded, len(devices))
