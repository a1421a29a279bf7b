"""Checkpoints: everything a run needs to resume after a round, in files that are complete or absent.

A checkpoint is a zip archive without compression: `checkpoint.json`, and each array as `N.npy`, which
numpy reads without pickle. zip's own checksums detect a damaged file. It is written under a temporary name,
synced, and renamed, so a process killed at any instant leaves either the old files or the new one.

Random generators have no position to save: every draw has its own generator, derived from seed, purpose,
dispatch and client (`common/seeds.py`).
"""

from __future__ import annotations

import json
import math
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from shoal.common.arrays import NumpyArray, view
from shoal.common.config import Scenario
from shoal.common.config.file import dump_toml
from shoal.common.dotted import dotted
from shoal.common.errors import CheckpointError
from shoal.common.journal import make_folder, replacing, write_atomically

FORMAT: Final = 2
KEPT: Final = 2  # the newest, and one more in case it is damaged
_START: Final = "start.zip"
_BEGUN: Final = "begun.json"
# Keys that may differ between a run and its resumption: they decide where it runs, not what it computes.
_FREE: Final = {
    "resources": (
        "backend",
        "transport",
        "ray_address",
        "compression",
        "workers",
        "max_retries",
        "timeout_s",
        "worker_memory_mb",
    ),
    "server": ("round_retries",),
    "output": ("directory", "checkpoint_every"),
}

_RECORDS: Final = {"metrics": MetricRecord, "config": ConfigRecord}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they are; created when the first is written.
        scenario: as resolved; checkpoints of another scenario are refused.
    """

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self._folder = folder
        self._scenario = scenario
        self.refused: list[str] = []  # unusable files, and why

    def save_start(self, state: Mapping[str, Any]) -> None:
        """Save what is constant over all rounds."""
        self._write(self._folder / _START, state)

    def save(self, round_number: int, state: Mapping[str, Any]) -> None:
        """Save the state after a round, and remove old ones.

        Args:
            round_number: the round; state: any value that `encode` accepts.

        Raises:
            CheckpointError: it cannot be written; earlier files are unchanged.
        """
        self._write(self._folder / f"round-{round_number:06}.zip", state)
        # The second pattern: partial files of a process that was killed while writing.
        for path in (*self._rounds()[KEPT:], *self._folder.glob(".*.part")):
            path.unlink(missing_ok=True)

    def begin(self, number: int) -> None:
        """Record durably that the dispatch with this number is about to be sent.

        Raises:
            OSError: it cannot be written.
        """
        if not self._folder.exists():
            make_folder(self._folder)
        write_atomically(self._folder / _BEGUN, json.dumps(number))

    @property
    def begun(self) -> int:
        """The number of the last dispatch that `begin` recorded; 0 for none."""
        path = self._folder / _BEGUN
        return int(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else 0

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """Return what `save_start` saved, and the newest usable round; `None` if nothing was saved.

        Raises:
            CheckpointError: there are checkpoints, but none is usable.
        """
        rounds = self._rounds()
        if not rounds:
            return None
        start = self._try(self._folder / _START)
        for path in rounds if start is not None else []:
            found = self._try(path)
            if start is not None and found is not None:
                return start, found
        raise CheckpointError("no usable checkpoint:\n  " + "\n  ".join(self.refused))

    def _rounds(self) -> list[Path]:
        return sorted(self._folder.glob("round-*.zip"), reverse=True)

    def _try(self, path: Path) -> Mapping[str, Any] | None:
        """Read a checkpoint; `None`, with the reason in `refused`, if it is unusable."""
        try:
            content = _read(path)
        except CheckpointError as error:
            self.refused.append(f"{path}: {error.message}")
            return None
        changed = _changed_keys(content["config"], dump_toml(self._scenario))
        if changed:
            self.refused.append(
                f"{path}: it belongs to another config; these keys differ: {', '.join(changed)}"
            )
            return None
        state: Mapping[str, Any] = content["state"]
        return state

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        arrays = _Arrays()
        content = {"format": FORMAT, "config": dump_toml(self._scenario), "state": encode(state, arrays)}
        try:
            if not path.parent.exists():
                make_folder(path.parent)
            with replacing(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                for number, array in enumerate(arrays.found):
                    with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
                archive.writestr("checkpoint.json", json.dumps(content, allow_nan=False))
        except OSError as error:
            raise CheckpointError(
                f"cannot write the checkpoint {path}: {error.strerror or error}",
                hint="free disk space or fix the folder, then run `shoal resume`; checkpoints are kept",
            ) from error


@dataclass(slots=True)
class _Arrays:
    """The arrays met so far, each object once."""

    found: list[NDArray[Any]] = field(default_factory=list)
    numbers: dict[int, int] = field(default_factory=dict)

    def add(self, array: NDArray[Any]) -> int:
        # Two records may share memory: the best weights are often the last ones.
        key = array.__array_interface__["data"][0] if array.nbytes else id(array)
        number = self.numbers.get(key)
        if number is None or not _same(self.found[number], array):
            number = self.numbers[key] = len(self.found)
            self.found.append(array)
        return number


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.strides == b.strides


def encode(value: Any, arrays: _Arrays) -> Any:
    """Turn a value into JSON, collecting its arrays.

    Accepts None, bool, int, float, str, bytes, numpy arrays and scalars, Flower's records, and lists, tuples
    and mappings of these with keys of type str or int.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, np.ndarray | np.generic):  # before float: numpy's float64 is one
        if value.dtype.hasobject:
            raise TypeError("an array of Python objects")
        kind = "array" if isinstance(value, np.ndarray) else "number"
        return {kind: arrays.add(np.asarray(value))}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [encode(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [encode(item, arrays) for item in value]}
    if isinstance(value, ArrayRecord):
        return {"weights": [[name, arrays.add(view(array))] for name, array in value.items()]}
    for kind, record in _RECORDS.items():
        if isinstance(value, record):
            return {kind: [[name, encode(item, arrays)] for name, item in value.items()]}
    if isinstance(value, RecordDict):
        return {"records": [[name, encode(record, arrays)] for name, record in value.items()]}
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        return {"mapping": [[key, encode(item, arrays)] for key, item in value.items()]}
    raise TypeError(type(value).__name__)


def can_encode(value: Any) -> bool:
    """Return whether `encode` accepts a value."""
    try:
        encode(value, _Arrays())
    except TypeError:
        return False
    return True


def decode(value: Any, arrays: Callable[[int], NDArray[Any]]) -> Any:
    """Return the value that `encode` was given.

    Args:
        value: JSON; arrays: index → array.
    """
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "float":
        return float(inner)
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "array":
        return arrays(inner)
    if kind == "number":
        return arrays(inner)[()]
    if kind == "tuple":
        return tuple(decode(item, arrays) for item in inner)
    if kind == "weights":
        record = ArrayRecord()
        for name, number in inner:
            record[name] = NumpyArray(arrays(number))
        return record
    pairs = {key: decode(item, arrays) for key, item in inner}
    if kind in _RECORDS:
        return _RECORDS[kind](pairs)
    return RecordDict(pairs) if kind == "records" else pairs


def _read(path: Path) -> dict[str, Any]:
    """Read a complete checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content: dict[str, Any] = json.loads(archive.read("checkpoint.json"))
            if content["format"] != FORMAT:
                raise CheckpointError(f"it has format {content['format']}, this shoal reads {FORMAT}")
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            arrays = {}
            for name in names:
                with archive.open(name) as member:
                    arrays[int(name.removesuffix(".npy"))] = np.lib.format.read_array(
                        member, allow_pickle=False
                    )
                    member.read()  # to its end, where zip compares the checksum
            state = decode(content["state"], arrays.__getitem__)
    except FileNotFoundError as error:
        raise CheckpointError("it is missing") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"it is damaged ({type(error).__name__}: {error})") from error
    return {**content, "state": state}


def _changed_keys(before: str, now: str) -> list[str]:
    """Return the keys that differ between two configs and affect results."""
    old, new = dotted(tomllib.loads(before)), dotted(tomllib.loads(now))
    free = {f"{section}.{key}" for section, keys in _FREE.items() for key in keys}
    return sorted(k for k in old.keys() | new.keys() if k not in free and old.get(k) != new.get(k))
