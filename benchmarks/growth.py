"""How seconds and memory grow with the cohort, the population, the model, workers and rounds.

Each case runs in a process of its own, so that memory is its own too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks import results
from benchmarks.children import measure
from benchmarks.growth_side import FEATURES, Case

_MB: Final = 1e6
_WEIGHT_BYTES: Final = 4
_UNIT_WEIGHTS: Final = FEATURES + 2  # a hidden unit has its inputs, a bias and one output

Found = Mapping[str, Any]


def main(*, quick: bool = False) -> None:
    """Measure everything and write results/growth-*."""
    for part in (cohort, population, size, workers, rounds, server_memory):
        part(quick)


def cohort(quick: bool) -> None:
    """Clients a round; the aim is a straight line."""
    sizes = (10, 100) if quick else (10, 30, 100, 300, 1_000, 3_000, 10_000)
    found = {n: _run(Case(population=20_000, cohort=n, rounds=3 if quick else 6)) for n in sizes}
    _save(
        "cohort",
        "Clients a round (MLP 30-64, 60 rows each, of 20,000 clients, 2 workers)",
        "clients a round",
        found,
        notes=[_line(found, "client")],
    )


def population(quick: bool) -> None:
    """Population at one cohort; the aim is 10^6 within 5 % of 10^3."""
    sizes = (10**3, 10**6) if quick else (10**3, 10**4, 10**5, 10**6)
    turns = 1 if quick else 3
    cases = {n: Case(population=n, cohort=100, rounds=4 if quick else 8) for n in sizes}
    runs = [
        {n: _run(case) for n, case in cases.items()} for _ in range(turns)
    ]  # in turns, to share the noise
    found = {n: max((run[n] for run in runs), key=lambda r: -median(r["seconds"])) for n in sizes}
    ratio = median(found[sizes[-1]]["seconds"]) / median(found[sizes[0]]["seconds"])
    _save(
        "population",
        "Clients in the population (100 of them a round, best of three runs in turns)",
        "population",
        found,
        notes=[f"10^6 takes {ratio:.2f} times as long as 10^3; the aim is at most 1.05."],
    )


def size(quick: bool) -> None:
    """Size of the model; the aim is a straight line."""
    sizes = (10_000, 1_000_000) if quick else (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
    found = {n: _run(Case(population=100, cohort=10, rounds=4, hidden=_units(n), steps=1)) for n in sizes}
    _save(
        "size",
        "Bytes of the model (10 clients a round, one step each, 2 workers)",
        "bytes",
        found,
        notes=[_line(found, "byte")],
    )


def workers(quick: bool) -> None:
    """One worker and two."""
    clients = 100 if quick else 400
    cases = {
        "1 worker, stacked": Case(2_000, clients * 5, 4, path="stacked", workers=1),
        "2 workers, stacked": Case(2_000, clients * 5, 4, path="stacked", workers=2),
        "1 worker, one by one": Case(2_000, clients, 4, path="sequential", workers=1),
        "2 workers, one by one": Case(2_000, clients, 4, path="sequential", workers=2),
    }
    found = {name: _run(case) for name, case in cases.items()}
    gains = [
        median(found[f"1 worker, {path}"]["seconds"]) / median(found[f"2 workers, {path}"]["seconds"])
        for path in ("stacked", "one by one")
    ]
    note = "Two workers are {:.2f} times as fast as one stacked, {:.2f} times one by one.".format(*gains)
    title = f"Workers ({clients * 5:,} clients a round stacked, {clients} one by one)"
    _save("workers", title, "workers", found, notes=[note])


def rounds(quick: bool) -> None:
    """Memory over many rounds; the aim is flat within 2 % from the tenth part on."""
    count = 40 if quick else 500
    found = _run(Case(population=200, cohort=20, rounds=count, every=10))
    rows, notes = [], []
    for name in ("server", "workers"):
        values = np.array(found[name][max(1, len(found[name]) // 10) :]) / _MB
        rows.append([name, values[0], values[-1], values.max(), float(values[-1] / values[0] - 1)])
        notes.append(f"{name}: {values[-1] / values[0] - 1:+.1%} from round {count // 10} to {count}.")
    results.save(
        "growth-rounds",
        f"Memory over {count} rounds of 20 clients, MB",
        ("process", f"round {count // 10}", f"round {count}", "most", "change"),
        rows,
        notes=notes,
        data={"every": 10, **found},
    )


def server_memory(quick: bool) -> None:
    """The server's memory for a mean of 50 and of 5,000 clients, and where every update is needed."""
    many, weights = (100, 1_000_000) if quick else (5_000, 10_000_000)
    hidden = _units(weights)
    cases = {
        "FedAvg, 50": Case(many, 50, 3, rows=20, hidden=hidden, steps=1),
        f"FedAvg, {many:,}": Case(many, many, 2, rows=20, hidden=hidden, steps=1),
        "FedMedian, 50": Case(many, 50, 3, rows=20, hidden=hidden, steps=1, strategy="FedMedian"),
    }
    found = {name: _run(case) for name, case in cases.items()}
    results.save(
        "growth-server",
        f"The server's memory, model of {weights // 1_000_000} MB",
        ("strategy, clients a round", "seconds a round", "MB before round 1", "MB at most", "MB more"),
        [
            [name, median(f["seconds"]), f["before"] / _MB, f["peak"] / _MB, (f["peak"] - f["before"]) / _MB]
            for name, f in found.items()
        ],
        notes=["Private runtime memory of the server's process, sampled 50 times a second."],
        data=found,
    )


def _run(case: Case) -> dict[str, Any]:
    return measure("growth_side", asdict(case), timeout_s=1200)


def _units(size: int) -> int:
    """Return the hidden units of a model of so many bytes."""
    return max(1, size // (_WEIGHT_BYTES * _UNIT_WEIGHTS))


def _save(name: str, title: str, axis: str, found: Mapping[Any, Found], *, notes: Sequence[str] = ()) -> None:
    columns = (axis, "seconds a round", "server MB", "workers MB")
    rows = [
        [key, median(f["seconds"]), f["server"][-1] / _MB, f["workers"][-1] / _MB] for key, f in found.items()
    ]
    data = {str(key): f for key, f in found.items()}
    results.save(f"growth-{name}", title, columns, rows, notes=notes, data=data)


def _line(found: Mapping[int, Found], unit: str) -> str:
    """Return the straight line through seconds against size, as a note."""
    x = np.array(list(found), np.float64)
    y = np.array([median(f["seconds"]) for f in found.values()])
    slope, start = np.polyfit(x, y, 1)
    explained = 1 - ((y - start - slope * x) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return (
        f"Straight line: {start * 1e3:.3g} ms + {slope * 1e6:.3g} µs a {unit}; it explains {explained:.2%} "
        "of the variance."
    )
