"""Built-in populations of devices, each with the source of its numbers, and a user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.errors import ConfigError, unknown_name
from shoal.common.plugins import is_users_own, load_object
from shoal.simulations.devices.availability import Availability
from shoal.simulations.devices.draws import choice, from_quantiles, indices, normal, uniform
from shoal.simulations.devices.profiles import NUMBERS, Devices

_GB: Final = 1e9
_MBIT: Final = 1e6
# A Xiaomi Mi 9 trains MobileNetV2 (0.6 GFLOP forward, three times that in all) in 403 ms a batch of 1 and
# 4,525 ms a batch of 16, and SqueezeNet (1.7 GFLOP) in 150 and 2,704 ms; LeNet takes 9.7 ms, nearly all of it
# overhead (UbiquitousLearning, Benchmark-On-Device-Training). So about 10 GFLOP/s, and 9 ms a step.
_PHONE_FLOPS: Final = 10e9
_PHONE_STEP_S: Final = 0.009
_PHONE_W: Final = 1.97  # the same benchmark: 1.95 to 1.99 W
_RADIO_W: Final = 1.0  # an assumption; radios of phones take 0.5 to 2 W while they transfer
# Training latency of 976 phones: LogN(5.18, 0.76) ms (FLHetBench, CVPR 2024, training_latency.json).
_PHONE_SPREAD: Final = 0.76
# RAM of 333 phones: 1 / 3 / 4 / 6 / 8 GB at 5 / 25 / 50 / 75 / 95 % (FLASH, raw_ai_benchmark_list.json). A
# background app gets a quarter of it: an assumption.
_PHONE_RAM: Final = (1.0, 3.0, 4.0, 6.0, 8.0)
_RAM_SHARE: Final = 0.25
_AT: Final = (0.05, 0.25, 0.5, 0.75, 0.95)  # of all quantiles here
# Down, Mbit/s, 10,000 tests each (China 2021, mobilebandwidth.github.io).
_4G: Final = (1.1, 8.9, 26.0, 58.0, 241.0)
_5G: Final = (10.0, 151.0, 313.0, 414.0, 621.0)
_READY: Final = Availability(a_day=2.0, never=0.29, time_zones=1)  # 71 % of devices are ever ready

Population = Callable[[int, int], Devices]  # (number of devices, seed) → devices


def _phones(count: int, seed: int, down: NDArray[np.float64], up: NDArray[np.float64], cv: float) -> Devices:
    index = np.arange(count)
    slowness = np.exp(_PHONE_SPREAD * normal(seed, "speed", index))
    kinds = np.searchsorted([0.6, 1.7], slowness)  # a third each, by the quantiles of the log-normal
    ram = from_quantiles(uniform(seed, "memory", index), _AT, _PHONE_RAM)
    return Devices.of(
        count,
        {
            "flops": _PHONE_FLOPS / slowness,
            "step_s": _PHONE_STEP_S * slowness,
            "memory": _RAM_SHARE * ram * _GB,
            "down": down,
            "up": up,
            "link_variation": cv,
            "latency_s": 0.2,
            "variation": 0.1,
            "compute_w": _PHONE_W,
            "radio_w": _RADIO_W,
            "kind": kinds,
            "availability": _READY,
        },
        ("fast phone", "middle phone", "slow phone"),
    )


def phones_2018_wifi(count: int, seed: int) -> Devices:
    """Phones on the slow Wi-Fi of FLASH (speed_distri.json, 19 users).

    Down LogN(ln 4.3 Mbit/s, 0.47), up LogN(ln 3.3, 0.68), coefficient of variation within a user 0.37.
    """
    index = np.arange(count)
    down = 4.3 * _MBIT * np.exp(0.47 * normal(seed, "down", index))
    up = 3.3 * _MBIT * np.exp(0.68 * normal(seed, "up", index))
    return replace(_phones(count, seed, down, up, 0.37), source="FLASH speed_distri.json")


def phones_2021_4g5g(count: int, seed: int) -> Devices:
    """Phones on 4G (70 %) and 5G (30 %, an assumption), by the quantiles of speed tests in China, 2021.

    Up is a fifth of down (an assumption; the tests measured down only).
    """
    index = np.arange(count)
    u = uniform(seed, "down", index)
    five = uniform(seed, "5g", index) < 0.3
    down = _MBIT * np.where(five, from_quantiles(u, _AT, _5G), from_quantiles(u, _AT, _4G))
    return replace(_phones(count, seed, down, down / 5, 0.3), source="mobilebandwidth.github.io")


def wearables(count: int, seed: int) -> Devices:
    """Watches: a tenth of a phone's speed, 64 MB for training, Bluetooth over a phone (all assumptions)."""
    index = np.arange(count)
    slowness = np.exp(0.4 * normal(seed, "speed", index))
    values = {
        "flops": 1e9 / slowness,
        "step_s": 0.03 * slowness,
        "memory": 64e6,
        "down": 1 * _MBIT,
        "up": 0.7 * _MBIT,
        "link_variation": 0.5,
        "latency_s": 0.5,
        "variation": 0.1,
        "compute_w": 0.3,
        "radio_w": 0.1,
        "availability": Availability(a_day=1.2, log_mean=8.7, log_sd=0.6, swing=0.8),
    }
    return Devices.of(count, values, ("watch",))


def iot_gateways(count: int, seed: int) -> Devices:
    """Gateways on mains power and office lines: always on, 1 GB, 20 Mbit/s (all assumptions)."""
    index = np.arange(count)
    values = {
        "flops": 5e9 / np.exp(0.3 * normal(seed, "speed", index)),
        "step_s": 0.005,
        "memory": 1 * _GB,
        "down": 20 * _MBIT,
        "up": 10 * _MBIT,
        "link_variation": 0.2,
        "latency_s": 0.05,
        "variation": 0.05,
        "compute_w": 6.0,
        "radio_w": 0.5,
    }
    return Devices.of(count, values, ("gateway",))


def clinics(count: int, seed: int) -> Devices:
    """Servers of clinics: 50 GFLOP/s, 16 GB, office lines of 50 to 500 Mbit/s (all assumptions)."""
    index = np.arange(count)
    down = _MBIT * 50 * 10 ** uniform(seed, "down", index)
    values = {
        "flops": 50e9 / np.exp(0.5 * normal(seed, "speed", index)),
        "step_s": 0.001,
        "memory": 16 * _GB,
        "down": down,
        "up": down / 5,
        "link_variation": 0.1,
        "latency_s": 0.03,
        "variation": 0.05,
        "compute_w": 65.0,
        "radio_w": 5.0,
    }
    return Devices.of(count, values, ("server",))


def uniform_devices(count: int, seed: int) -> Devices:
    """Equal devices, always on: 10 GFLOP/s, 10 Mbit/s each way; nothing varies."""
    values = {"flops": 10e9, "step_s": 0.005, "memory": 4 * _GB, "down": 10 * _MBIT, "up": 10 * _MBIT,
              "latency_s": 0.1, "compute_w": 2.0, "radio_w": 1.0}  # fmt: skip
    return Devices.of(count, values)


POPULATIONS: Final[Mapping[str, Population]] = {
    "phones-2018-wifi": phones_2018_wifi,
    "phones-2021-4g5g": phones_2021_4g5g,
    "wearables": wearables,
    "iot-gateways": iot_gateways,
    "clinics": clinics,
    "uniform": uniform_devices,
}


def load_devices(name: str, count: int, seed: int) -> Devices:
    """Return a population.

    Args:
        name: of a built-in one; several with shares, as in "clinics:1, wearables:3"; the path of a CSV or
            Parquet file with a column for each attribute of `Devices` and optionally "class"; or
            package.module:function, which takes the number of devices and the seed.
        count: number of devices; seed: of the run.

    Raises:
        ConfigError: the name is unknown, or a value is out of range.
    """
    if is_users_own(name) and "," not in name and name.split(":")[0] not in POPULATIONS:
        return _own(name, count, seed)
    if name.endswith((".csv", ".parquet")):
        return from_file(Path(name), count, seed)
    parts = [part.strip().partition(":") for part in name.split(",")]
    for part, _, _ in parts:
        if part not in POPULATIONS:
            known = unknown_name("population of devices", part, POPULATIONS)
            raise ConfigError(f"devices: {known}, a CSV or Parquet file, or package.module:function")
    if len(parts) == 1:
        return POPULATIONS[parts[0][0]](count, seed)
    try:
        shares = [float(share or 1) for _, _, share in parts]
    except ValueError as error:
        raise ConfigError(f'devices: expected "name:share, name:share", got "{name}"') from error
    return mixture([POPULATIONS[part] for part, _, _ in parts], shares, count, seed)


def mixture(populations: list[Population], shares: list[float], count: int, seed: int) -> Devices:
    """Return devices drawn from several populations; they must have the same availability."""
    which = choice(seed, "population", shares, np.arange(count))
    found = [one(count, seed) for one in populations]
    names = sorted({kind for one in found for kind in one.kinds})
    first = found[0]
    if any(one.availability != first.availability for one in found):
        raise ConfigError("devices: a mixture needs populations with the same availability")
    values: dict[str, Any] = {"kind": np.zeros(count, np.int16)}
    for attribute in NUMBERS:
        values[attribute] = np.choose(which, [getattr(one, attribute) for one in found])
    for k, one in enumerate(found):
        index = np.array([names.index(kind) for kind in one.kinds])
        values["kind"] = np.where(which == k, index[one.kind], values["kind"])
    return Devices.of(count, {**values, "availability": first.availability}, names)


def from_file(path: Path, count: int, seed: int) -> Devices:
    """Return devices drawn with replacement from the rows of a file, in their order if there are as many.

    Raises:
        ConfigError: the file cannot be read, has an unknown column, or a value out of range.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        table = parquet.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"devices: {path} cannot be read: {type(error).__name__}") from error
    values: dict[str, Any] = {}
    kinds = ["device"]
    for column in table.column_names:
        if column == "class":
            texts = [str(text) for text in table[column].to_pylist()]
            kinds = sorted(set(texts))
            values["kind"] = np.array([kinds.index(text) for text in texts])
            continue
        try:
            values[column] = table[column].to_numpy().astype(np.float64)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f'devices: the column "{column}" of {path} has values that are no numbers'
            ) from error
    rows = Devices.of(table.num_rows, values, kinds)
    if len(rows) == count:
        return rows
    return rows.take(indices(seed, "row", len(rows), np.arange(count)))


def _own(name: str, count: int, seed: int) -> Devices:
    found = load_object("devices", name)(count, seed)
    if not isinstance(found, Devices) or len(found) != count:
        raise ConfigError(f"devices: {name} must return Devices, {count} of them")
    return found.checked()
