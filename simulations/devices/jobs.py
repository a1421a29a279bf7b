"""How long a device needs for one job (download, training, upload), and what the job takes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.simulations.devices.draws import normal
from shoal.simulations.devices.profiles import Devices

Floats = NDArray[np.float64]
_LEAST = 0.05  # no job is faster than this fraction of its mean, however much times vary


@dataclass(frozen=True, slots=True)
class Work:
    """What one job asks of a device.

    Attributes:
        flops_per_step: of an optimisation step, forward and backward.
        steps: of each device's training, (devices,).
        bytes_down, bytes_up: of the model and of the encoded update.
        memory: bytes that training needs.
    """

    flops_per_step: float
    steps: Floats
    bytes_down: float
    bytes_up: float
    memory: float = 0.0


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds of each phase of jobs, (jobs,)."""

    down: Floats
    train: Floats
    up: Floats

    @property
    def whole(self) -> Floats:
        """Seconds from start to end."""
        return self.down + self.train + self.up


def durations(
    devices: Devices, work: Work, seed: int, device: NDArray[np.int64], number: NDArray[np.int64]
) -> Durations:
    """Return how long jobs take if nothing interrupts them.

    Seconds of training are steps · (step_s + flops_per_step / flops), varied between jobs; those of a
    transfer are latency + bits / rate, where a fraction `loss` of all bits is sent again.

    Args:
        devices, work: of the federation; seed: of the run.
        device: index of each job's device, (jobs,); number: of each job, which keys its variation.
    """
    step = devices.step_s[device] + work.flops_per_step / devices.flops[device]
    varied = 1 + devices.variation[device] * normal(seed, "compute", device, number)
    train = work.steps[device] * step * np.maximum(varied, _LEAST)
    again = 1 / (1 - devices.loss[device])
    sigma2 = np.log1p(devices.link_variation[device] ** 2)

    def transfer(purpose: str, size: float, rate: Floats) -> Floats:
        varied = np.exp(np.sqrt(sigma2) * normal(seed, purpose, device, number) - sigma2 / 2)  # mean 1
        return np.asarray(devices.latency_s[device] + size * 8 * again / (rate[device] * varied))

    down = transfer("link down", work.bytes_down, devices.down)
    return Durations(down, train, transfer("link up", work.bytes_up, devices.up))


def fits(devices: Devices, work: Work) -> NDArray[np.bool_]:
    """Return which devices have the memory that training needs."""
    return np.asarray(devices.memory >= work.memory)


def spent(
    done: Any, whole: Durations, devices: Devices, work: Work, device: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """Return what jobs that ran for `done` seconds took: bytes down, bytes up, joules; each (jobs,)."""
    down = np.minimum(done, whole.down)
    train = np.clip(done - whole.down, 0, whole.train)
    up = np.clip(done - whole.down - whole.train, 0, whole.up)
    joules = train * devices.compute_w[device] + (down + up) * devices.radio_w[device]
    return work.bytes_down * _share(down, whole.down), work.bytes_up * _share(up, whole.up), joules


def _share(done: Floats, whole: Floats) -> Floats:
    """Return the fraction that is done; all of what takes no time."""
    return np.divide(done, whole, out=np.ones_like(done), where=whole > 0)
