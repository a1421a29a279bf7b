"""What a device is: its speed, memory, link, power and class, for all devices of a population at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.common.errors import ConfigError
from shoal.simulations.devices.availability import Availability

Floats = NDArray[np.float64]
_ABOVE_ZERO = ("flops", "memory", "down", "up")
_NOT_NEGATIVE = ("step_s", "variation", "link_variation", "latency_s", "loss", "compute_w", "radio_w")
NUMBERS = (*_ABOVE_ZERO, *_NOT_NEGATIVE)  # attributes of `Devices` that are numbers


@dataclass(frozen=True, slots=True)
class Devices:
    """A population of devices; each array is (devices,).

    Attributes:
        flops: floating-point operations per second in training.
        step_s: seconds of each optimisation step in addition (dispatch of kernels, loading of a batch).
        memory: bytes for training.
        down, up: mean bits per second; link_variation: coefficient of variation between transfers.
        latency_s: seconds before a transfer begins; loss: fraction of bits sent again, below 1.
        variation: coefficient of variation of the time of a training, between jobs.
        compute_w, radio_w: watts while training, while transferring.
        kind: index of the device's class in `kinds`; kinds: names of the classes.
        availability: when they can work.
        source: where the numbers are from.
    """

    flops: Floats
    step_s: Floats
    memory: Floats
    down: Floats
    up: Floats
    link_variation: Floats
    latency_s: Floats
    loss: Floats
    variation: Floats
    compute_w: Floats
    radio_w: Floats
    kind: NDArray[np.int16]
    kinds: tuple[str, ...]
    availability: Availability = field(default_factory=Availability)
    source: str = ""

    def __len__(self) -> int:
        return len(self.flops)

    @classmethod
    def of(cls, count: int, values: Mapping[str, Any], kinds: Sequence[str] = ("device",)) -> Devices:
        """Return devices from arrays or single numbers; what is missing costs nothing.

        Args:
            count: number of devices; values: attribute → array (devices,) or number; kinds: names of classes.

        Raises:
            ConfigError: an unknown attribute, a wrong length, or a value out of range.
        """
        free = {
            "flops": np.inf, "step_s": 0.0, "memory": np.inf, "down": np.inf, "up": np.inf,
            "link_variation": 0.0, "latency_s": 0.0, "loss": 0.0, "variation": 0.0, "compute_w": 0.0,
            "radio_w": 0.0, "kind": 0,
        }  # fmt: skip
        others: dict[str, Any] = {name: values[name] for name in ("availability", "source") if name in values}
        if unknown := values.keys() - free.keys() - others.keys():
            raise ConfigError(
                f"devices have no {', '.join(sorted(unknown))}; known: {', '.join([*free, *others])}"
            )
        arrays: dict[str, Any] = {}
        for name, default in free.items():
            dtype = np.int16 if name == "kind" else np.float64
            try:
                arrays[name] = np.broadcast_to(np.asarray(values.get(name, default), dtype), count).copy()
            except ValueError as error:
                raise ConfigError(f"devices.{name}: expected {count} numbers, or one") from error
        return cls(**arrays, **others, kinds=tuple(kinds)).checked()

    def checked(self) -> Devices:
        """Return the devices.

        Raises:
            ConfigError: there are none, or a value is out of range; the text names attribute and device.
        """
        problems = [] if len(self) else ["a population of devices must have at least one"]
        for name in NUMBERS:
            values = getattr(self, name)
            above = name in _ABOVE_ZERO
            wrong = np.isnan(values) | (values <= 0 if above else values < 0)
            if wrong.any():
                first = int(np.argmax(wrong))
                wanted = "above 0" if above else "0 or more"
                problems.append(f"{name} of device {first} is {values[first]:g}; expected {wanted}")
        if len(self) and self.loss.max() >= 1:
            problems.append(f"loss of device {int(np.argmax(self.loss))} is 1 or more: nothing would arrive")
        if len(self) and not (self.kind.min() >= 0 and self.kind.max() < len(self.kinds)):
            problems.append(f"kind must be an index of the {len(self.kinds)} classes")
        if problems:
            raise ConfigError(problems, source="devices")
        return self

    def take(self, indices: NDArray[np.integer[Any]]) -> Devices:
        """Return some of the devices, e.g. those that can hold the model."""
        arrays = {
            one.name: getattr(self, one.name)[indices]
            for one in fields(self)
            if one.name not in ("kinds", "availability", "source")
        }
        return replace(self, **arrays)
