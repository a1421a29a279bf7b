"""When devices can work: a pure function of seed, device and time, without a loop over devices.

A phone trains while it is idle, on Wi-Fi and charging. Each local day a device has a number of ready
sessions, which begin at hours drawn with a peak at night and last a log-normal time. Sessions of the
136,000-phone trace in FLHetBench (Zhang et al., CVPR 2024, `cached_timers.json`): LogN(7.26, 1.60) seconds,
0.2 to 4 a day, share ready 6.5 to 13.7 % by hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shoal.simulations.devices.draws import normal, uniform

Floats = NDArray[np.float64]
DAY_S: Final = 86_400.0
_MOST: Final = 4  # sessions that can begin in a day
_NIGHT_H: Final = 2.0  # local hour of the peak


@dataclass(frozen=True, slots=True)
class Availability:
    """The availability of a population; by default always.

    Attributes:
        a_day: mean number of sessions of a device in a day, at most 4; 0 for always available.
        log_mean, log_sd: of the logarithm of a session's seconds.
        swing: amplitude of the density of session starts over the day, in [0, 1].
        never: fraction of devices that are never available.
        time_zones: number of time zones, evenly spread over the day, between which devices are divided.
    """

    a_day: float = 0.0
    log_mean: float = 7.26
    log_sd: float = 1.60
    swing: float = 0.6
    never: float = 0.0
    time_zones: int = 1

    @property
    def always(self) -> bool:
        """Whether every device is always available."""
        return not self.a_day and not self.never

    def sessions(self, seed: int, device: ArrayLike, day: ArrayLike) -> tuple[Floats, Floats]:
        """Return the sessions that begin in a day, (..., 4): starts and ends in seconds; NaN for none.

        Args:
            seed: of the run; device, day: indices, broadcast together.
        """
        device, day = np.broadcast_arrays(np.asarray(device, np.int64), np.asarray(day, np.int64))
        present = uniform(seed, "session", device[..., None], day[..., None] + 1, np.arange(_MOST))
        there = (present < self.a_day / _MOST) & (day >= -1)[..., None]
        if self.never:
            there &= (uniform(seed, "never", device) >= self.never)[..., None]
        starts, ends = np.full(there.shape, np.nan), np.full(there.shape, np.nan)
        *place, which = np.nonzero(there)  # draws only for the sessions that exist: time matters here
        own, when = device[tuple(place)], day[tuple(place)]
        clock = self._hours(uniform(seed, "hour", own, when + 1, which)) * 3600
        if self.time_zones > 1:
            clock -= np.floor(uniform(seed, "zone", own) * self.time_zones) * (DAY_S / self.time_zones)
        start = when * DAY_S + np.mod(clock, DAY_S)
        length = np.exp(self.log_mean + self.log_sd * normal(seed, "length", own, when + 1, which))
        starts[there] = start
        # At most a day, so that only yesterday's sessions can reach into today.
        ends[there] = start + np.minimum(length, DAY_S)
        return starts, ends

    def reaching_into(self, seed: int, device: ArrayLike, day: ArrayLike) -> tuple[Floats, Floats]:
        """Return the sessions of a day and of the one before, (..., 8); arguments as for `sessions`."""
        both = [self.sessions(seed, device, np.asarray(day) - back) for back in (1, 0)]
        starts, ends = (np.concatenate(parts, axis=-1) for parts in zip(*both, strict=True))
        return starts, ends

    def until(self, seed: int, device: ArrayLike, time: ArrayLike) -> Floats:
        """Return until when each device stays available; NaN where it is not available at `time`.

        Args:
            seed: of the run; device: indices; time: seconds from 0, broadcast together.
        """
        device, time = np.broadcast_arrays(np.asarray(device, np.int64), np.asarray(time, np.float64))
        if self.always:
            return np.full(device.shape, np.inf)
        if not self.a_day:
            there = uniform(seed, "never", device) >= self.never
            return np.where(there, np.inf, np.nan)
        day = np.floor(time / DAY_S).astype(np.int64)
        starts, ends = self.reaching_into(seed, device, day)
        inside = (starts <= time[..., None]) & (time[..., None] < ends)
        found = np.where(inside, ends, -np.inf).max(axis=-1)
        return np.where(np.isfinite(found), found, np.nan)

    def _hours(self, u: Floats) -> Floats:
        """Return local hours with density 1 + swing · cos(2π (h - peak) / 24) from uniform numbers."""
        x = np.linspace(0, 1, 1025)  # fraction of the day after the peak
        distribution = x + self.swing * np.sin(2 * np.pi * x) / (2 * np.pi)
        return np.asarray(np.mod(np.interp(u, distribution, x) * 24 + _NIGHT_H, 24))
