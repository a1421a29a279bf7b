"""Synchronous rounds on the virtual clock: a cohort is asked, the round ends, and the next one begins."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from shoal.common.errors import ConfigError
from shoal.simulations.devices.draws import indices, uniform
from shoal.simulations.devices.jobs import durations
from shoal.simulations.devices.policy import (
    MOST_WAIT_S,
    WAIT_S,
    Course,
    Floats,
    Ints,
    JobOutcome,
    Jobs,
    Setting,
)

_SMALL: Final = 20_000  # populations up to this size are asked device by device who is online
_MOST_TRIES: Final = 40


def run_rounds(setting: Setting, rounds: int) -> Course:
    """Return the course of a number of rounds with policy "sync" or "deadline".

    Raises:
        ConfigError: too few devices are online for 30 days.
    """
    policy, time, versions, failed, begun = setting.policy, 0.0, list[float](), 0, 0
    wanted = min(policy.clients, len(setting.able))
    asked = min(math.ceil(policy.clients * policy.over_selection), len(setting.able))
    needed = max(1, math.ceil(policy.min_success * wanted))
    blocks = []
    for number in range(1, rounds + 1):
        start, device, until = _cohort(setting, time, asked, needed, number)
        numbers = np.arange(begun, begun + len(device))
        ends = start + durations(setting.devices, setting.work, setting.seed, device, numbers).whole
        close = _close(setting, start, ends, until, wanted)
        arrived = (ends <= until) & (ends <= close)
        enough = bool(arrived.sum() >= needed)
        versions += [close] * enough
        failed += not enough
        gone = (until < ends) & (until < close)
        outcome = np.where(gone, JobOutcome.OFFLINE, JobOutcome.LATE)
        outcome[arrived & enough] = JobOutcome.USED
        version = np.full(len(device), len(versions) - enough)
        made = np.where(outcome == JobOutcome.USED, len(versions), 0)
        end = np.minimum(np.minimum(ends, until), close)
        blocks.append(Jobs(device, numbers, version, made, outcome, np.full(len(device), start), end))
        begun, time = begun + len(device), close
    return Course(Jobs.joined(blocks), np.array(versions), failed)


def _close(setting: Setting, start: float, ends: Floats, until: Floats, wanted: int) -> float:
    """Return when a round ends: with the last reply that it wants, or with the last that can still come."""
    arrivals = np.sort(ends[ends <= until])
    # Which reply is the last is known only when all other devices are gone.
    last = arrivals[wanted - 1] if len(arrivals) >= wanted else np.minimum(ends, until).max()
    return float(min(last, start + setting.policy.deadline_s))


def _cohort(
    setting: Setting, time: float, asked: int, needed: int, number: int
) -> tuple[float, Ints, Floats]:
    """Return when enough devices are online, which are asked, and when each of them goes offline."""
    begun = time
    while True:
        device, until = _online(setting, time, asked, number)
        if len(device) >= needed:
            return time, device, until
        time += WAIT_S
        if time - begun > MOST_WAIT_S:
            raise ConfigError(
                f"round {number}: for 30 days from hour {begun / 3600:.1f} there were never {needed} devices "
                f"online at a time (at the end: {len(device)} of {len(setting.able):,})",
                hint="ask fewer clients in a round, or use devices that are online more often",
            )


def _online(setting: Setting, time: float, asked: int, number: int) -> tuple[Ints, Floats]:
    """Return up to `asked` different devices that are online, in random order, and until when they are."""
    availability, able, seed = setting.devices.availability, setting.able, setting.seed
    key = number * 1_000_003 + int(time // WAIT_S)  # another order after each wait
    if len(able) <= _SMALL:
        order = able[np.argsort(uniform(seed, "order", able, key))]
        until = availability.until(seed, order, time)
        there = ~np.isnan(until)
        return order[there][:asked], until[there][:asked]
    found, ends = np.empty(0, np.int64), np.empty(0)
    for attempt in range(_MOST_TRIES):
        count = 2 * asked * (attempt + 1) + 64
        drawn = able[indices(seed, "pick", len(able), np.arange(count), key, attempt)]
        until = availability.until(seed, drawn, time)
        there = ~np.isnan(until)
        device = np.concatenate([found, drawn[there]])
        first = np.sort(np.unique(device, return_index=True)[1])
        found, ends = device[first], np.concatenate([ends, until[there]])[first]
        if len(found) >= asked:
            break
    return found[:asked], ends[:asked]
