"""Buffered asynchronous training on the virtual clock: every few replies make a version of the model."""

from __future__ import annotations

import heapq
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from shoal.common.errors import ConfigError
from shoal.simulations.devices.availability import DAY_S
from shoal.simulations.devices.draws import indices
from shoal.simulations.devices.jobs import durations
from shoal.simulations.devices.policy import MOST_WAIT_S, WAIT_S, Course, JobOutcome, Jobs, Setting

_BLOCK: Final = 8_192  # most candidates drawn at a time
_MOST_BLOCKS: Final = 3  # drawn for a free place; more find nobody either
_TRIES: Final = 200  # candidates looked at for a free place, in addition to a block
_IDLE: Final = -1  # stands for a job at a place that found no device


def run_buffered(setting: Setting, versions: int) -> Course:
    """Return the course of a run with policy "buffered" until it has made a number of versions.

    Raises:
        ConfigError: no device is online for 30 days.
    """
    run = _Run(setting)
    while len(run.versions) < versions:
        run.step()
    return run.course()


class _Start(NamedTuple):
    """A device that can start: its job's number and seconds, and the end of its session."""

    device: int
    number: int
    seconds: float
    until: float


@dataclass(slots=True)
class _Run:
    """The state between events.

    Attributes:
        working: heap of (end, job), or (time of the next look, _IDLE) for an idle place.
        busy: devices at work; buffer: jobs whose replies wait for the next version.
        device, number, version, made, outcome, start, end: of all jobs so far.
        last_start: time at which a device was last found.
    """

    setting: Setting
    versions: list[float] = field(default_factory=list)
    working: list[tuple[float, int]] = field(default_factory=list)
    busy: set[int] = field(default_factory=set)
    buffer: list[int] = field(default_factory=list)
    device: list[int] = field(default_factory=list)
    number: list[int] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    outcome: list[int] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    last_start: float = 0.0
    candidates: _Candidates = field(init=False)

    def __post_init__(self) -> None:
        self.candidates = _Candidates(self.setting)
        places = min(self.setting.policy.concurrency, len(self.setting.able))
        self.working = [(0.0, _IDLE)] * places

    def step(self) -> None:
        """Take the next event: a job ends, or an idle place looks for a device; then fill the place."""
        time, job = heapq.heappop(self.working)
        if job != _IDLE:
            self.busy.discard(self.device[job])
            if self.outcome[job] == JobOutcome.USED:
                self._arrived(job, time)
        found = self.candidates.next(time, self.busy)
        if found is not None:
            self._start(found, time)
            return
        if not self.busy and time - self.last_start > MOST_WAIT_S:
            raise ConfigError(
                f"for 30 days from hour {self.last_start / 3600:.1f} no device was online",
                hint="use devices that are online more often",
            )
        heapq.heappush(self.working, (time + WAIT_S, _IDLE))

    def _arrived(self, job: int, time: float) -> None:
        policy = self.setting.policy
        if len(self.versions) - self.version[job] > policy.max_staleness:
            self.outcome[job] = JobOutcome.STALE
            return
        self.buffer.append(job)
        if len(self.buffer) == policy.clients:
            self.versions.append(time)
            for one in self.buffer:
                self.made[one] = len(self.versions)
            self.buffer.clear()

    def _start(self, found: _Start, time: float) -> None:
        ends = time + found.seconds
        self.busy.add(found.device)
        self.device.append(found.device)
        self.number.append(found.number)
        self.version.append(len(self.versions))
        self.made.append(0)
        self.outcome.append(JobOutcome.USED if ends <= found.until else JobOutcome.OFFLINE)
        self.start.append(time)
        self.end.append(min(ends, found.until))
        self.last_start = time
        heapq.heappush(self.working, (self.end[-1], len(self.device) - 1))

    def course(self) -> Course:
        """Return the jobs so far; those at work, or in the buffer, were not used."""
        last = self.versions[-1]
        made, end, outcome = np.array(self.made), np.array(self.end), np.array(self.outcome)
        outcome[((outcome == JobOutcome.USED) & (made == 0)) | (end > last)] = JobOutcome.UNUSED
        device, number, version = np.array(self.device), np.array(self.number), np.array(self.version)
        jobs = Jobs(device, number, version, made, outcome, np.array(self.start), np.minimum(end, last))
        return Course(jobs, np.array(self.versions))


class _Candidates:
    """Devices in random order, with how long their next jobs take and when they are online.

    Drawn in blocks: what does not depend on the moment is computed for all of a block at once.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._drawn = self._at = 0
        self._day = -1
        self._size = min(_BLOCK, 4 * len(setting.able) + 64)
        self._nobody_at = -1.0  # the time at which nobody was found
        self._devices: list[int] = []
        self._numbers: list[int] = []
        self._seconds: list[float] = []
        self._sessions: list[list[tuple[float, float]]] = []

    def next(self, time: float, busy: Set[int]) -> _Start | None:
        """Return a device that is online and not busy; `None` if none was found."""
        day, blocks = int(time // DAY_S), 0
        if time == self._nobody_at:  # for another place
            return None
        for _ in range(_TRIES + self._size):
            if self._at == len(self._devices) or self._day != day:
                if blocks == _MOST_BLOCKS:
                    break
                blocks += 1
                self._draw(day)
                continue
            k = self._at
            self._at += 1
            ends = [end for start, end in self._sessions[k] if start <= time < end]
            if ends and self._devices[k] not in busy:
                return _Start(self._devices[k], self._numbers[k], self._seconds[k], max(ends))
        self._nobody_at = time
        return None

    def _draw(self, day: int) -> None:
        """Draw the next block, for a day; devices without a session that day are left out."""
        setting, seed = self._setting, self._setting.seed
        availability = setting.devices.availability
        numbers = np.arange(self._drawn, self._drawn + self._size)
        self._drawn, self._day, self._at = self._drawn + self._size, day, 0
        device = setting.able[indices(seed, "candidate", len(setting.able), numbers)]
        if availability.a_day:
            starts, ends = availability.reaching_into(seed, device, day)
        else:
            ends = availability.until(seed, device, 0.0)[:, None]
            starts = np.where(np.isnan(ends), np.nan, 0.0)
        there = ~np.isnan(starts).all(axis=-1)
        device, numbers = device[there], numbers[there]
        self._devices, self._numbers = device.tolist(), numbers.tolist()
        self._sessions = np.stack([starts[there], ends[there]], axis=-1).tolist()
        self._seconds = durations(setting.devices, setting.work, seed, device, numbers).whole.tolist()
