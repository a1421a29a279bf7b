"""Runs the cells of an attack table one after another, and records the results."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from shoal.common.config import HIGHER_IS_BETTER, Scenario
from shoal.common.errors import NonFiniteError
from shoal.common.journal import plain, write_atomically
from shoal.simulations import datasets
from shoal.simulations.attacks.catalog import NONE
from shoal.simulations.attacks.poisoning import Backdoor
from shoal.simulations.results.text import duration, metric_name, number
from shoal.simulations.sweeps.attack_cells import AttackCell, attackers
from shoal.simulations.sweeps.attack_measure import Judge
from shoal.simulations.sweeps.runs import GridRun, run_grid


@dataclass(frozen=True, slots=True)
class Row:
    """One cell, as in table.csv and table.json.

    Attributes:
        attack, defence: as requested; metric: the monitored metric.
        last, chosen, success: as in `measure.Measured`.
        damage: how much worse `last` is than with the same defence and no attack.
        run: folder of the run, or "" if it did not finish.
        diverged: whether the model became useless: training it no longer gives finite values.
        error: why there are no values for another reason; "" if there are.
    """

    attack: str
    defence: str
    metric: str
    last: float = math.nan
    chosen: float = math.nan
    damage: float = math.nan
    success: float = math.nan
    run: str = ""
    diverged: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class AttackTable:
    """All cells, and what they share.

    Attributes:
        scenario: the attacked one; clients: in the federation; malicious: names of the malicious ones.
        rows: by attack; "no attack" comes first.
    """

    scenario: Scenario
    clients: int
    malicious: Sequence[str]
    rows: Sequence[Row]

    @property
    def failed(self) -> int:
        """Number of failed cells."""
        return sum(bool(row.error) for row in self.rows)


def fill(
    scenario: Scenario, cells: Sequence[AttackCell], folder: Path, say: Callable[[str], None]
) -> AttackTable:
    """Run all cells that are not finished in `folder`, and write table.csv and table.json there.

    Args:
        scenario: shared by all cells; cells: "no attack" comes first.
        folder: gets a run folder for each cell; a finished run there is reused, a killed one is resumed.
        say: called with a message on each cell.
    """
    population = datasets.load_population(scenario)
    malicious = attackers(scenario, len(population))
    judge = Judge(scenario, population, malicious)
    names = [population.name(client) for client in sorted(malicious)]
    table = AttackTable(scenario, len(population), names, [])
    backdoor = next((trigger for cell in cells if (trigger := _backdoor(cell)) is not None), None)
    scenarios = {f"cell {number}": cell.scenario for number, cell in enumerate(cells)}
    for cell, found in zip(cells, run_grid(scenarios, folder), strict=True):
        started = time.monotonic() - found.seconds
        row = _with_damage(_row(cell, found, judge, _backdoor(cell) or backdoor), table.rows)
        table = replace(table, rows=[*table.rows, row])
        write(table, folder)
        say(f"[{len(table.rows)}/{len(cells)}] {_summary(row)}  {duration(time.monotonic() - started)}")
    return table


def write(table: AttackTable, folder: Path) -> None:
    """Write table.csv and table.json of the cells so far."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in table.rows)
    write_atomically(folder / "table.csv", text.getvalue())
    content: Mapping[str, object] = {
        "scenario": table.scenario.model_dump(mode="json"),
        "clients": table.clients,
        "malicious": list(table.malicious),
        "cells": [asdict(row) for row in table.rows],
    }
    write_atomically(folder / "table.json", json.dumps(plain(content), ensure_ascii=False, indent=2) + "\n")


def _row(cell: AttackCell, done: GridRun, judge: Judge, backdoor: Backdoor | None) -> Row:
    """Measure a run; what went wrong is in its row, and the others are not lost."""
    row = Row(cell.attack.label, cell.defence.label, judge.metric)
    if isinstance(done.error, NonFiniteError):
        return replace(row, diverged=True)
    if done.run is None:
        return replace(row, error=done.reason)
    tried = backdoor if cell.attack.name in (NONE, "backdoor") else None
    try:
        found = judge.measure(done.run, tried)
    except NonFiniteError:
        return replace(row, diverged=True)
    except Exception as error:
        return replace(row, error=f"{type(error).__name__}: {error}")
    return replace(row, last=found.last, chosen=found.chosen, success=found.success, run=done.run.name)


def _backdoor(cell: AttackCell) -> Backdoor | None:
    return Backdoor(**cell.attack.args) if cell.attack.name == "backdoor" else None


def _with_damage(row: Row, before: Sequence[Row]) -> Row:
    """Add how much worse a row is than that of the same defence without an attack."""
    peace = [other.last for other in before if other.attack == NONE and other.defence == row.defence]
    if row.attack == NONE or not peace:
        return row
    lost = peace[0] - row.last
    return replace(row, damage=lost if HIGHER_IS_BETTER[row.metric] else -lost)


def _summary(row: Row) -> str:
    head = f"{row.attack} x {row.defence}"
    if row.error:
        return f"{head}: {' '.join(row.error.split())}"
    if row.diverged:
        return f"{head}: the model diverged"
    success = f", backdoor {row.success:.0%}" if math.isfinite(row.success) else ""
    return f"{head}: {metric_name(row.metric)} {number(row.last)}{success}"
