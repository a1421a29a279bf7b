"""`shoal attack-table`: check all cells, run them, and write the table and its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.markup import escape
from rich.table import Table as Grid

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.common.journal import write_atomically
from shoal.common.schema import Schema
from shoal.simulations import datasets
from shoal.simulations.attacks.catalog import check_schema
from shoal.simulations.checks.scenario import validate
from shoal.simulations.console import make_console
from shoal.simulations.report import render_attacks
from shoal.simulations.report.attacks import DIVERGED
from shoal.simulations.results.text import metric_name, number
from shoal.simulations.sweeps.attack_cells import (
    AttackCell,
    default_attacks,
    default_defences,
    make_cells,
    parse,
)
from shoal.simulations.sweeps.attack_table import AttackTable, fill


def make_table(
    scenario: Scenario, attacks: str, defences: str, output: Path | None, say: Callable[[str], None]
) -> int:
    """Run the table and print it; return the number of failed cells.

    Args:
        scenario: the attacked scenario.
        attacks, defences: as on the command line; "" for the default ones.
        output: gets table.csv, table.json, table.html and a run folder for each cell; `None` for
            `<output.directory>/attack-table-<name>`.
        say: called with a message on each cell.

    Raises:
        ConfigError: a name or an argument is wrong; nothing was run.
    """
    population = datasets.load_population(scenario)
    tried = parse(attacks) if attacks else default_attacks(scenario)
    defended = parse(defences) if defences else default_defences(scenario)
    cells = make_cells(scenario, len(population), tried, defended)
    problems = [*dict.fromkeys(p for cell in cells for p in _problems(cell, population.schema))]
    if problems:
        raise ConfigError(problems)
    folder = output or Path(scenario.output.directory).expanduser() / f"attack-table-{scenario.name}"
    folder.mkdir(parents=True, exist_ok=True)
    table = fill(scenario, cells, folder, say)
    write_atomically(folder / "table.html", render_attacks(table))
    console = make_console()
    console.print(_grid(table))
    say(f"Table: {folder / 'table.html'}")
    return table.failed


def _problems(cell: AttackCell, schema: Schema) -> list[str]:
    found = validate(cell.scenario, deep=False)
    return found or check_schema(cell.scenario.attack, schema)


def _grid(table: AttackTable) -> Grid:
    """Return the metric of the last round by attack and defence, followed by the success of backdoors."""
    defences = list(dict.fromkeys(row.defence for row in table.rows))
    metric = metric_name(table.rows[0].metric)
    title = f"{metric} of the last round, mean over honest sites (in parentheses: success of a backdoor)"
    grid = Grid(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    grid.add_column("attack", overflow="fold")
    for name in defences:
        grid.add_column(escape(name), justify="right", overflow="fold")
    for attack in dict.fromkeys(row.attack for row in table.rows):
        cells = [row for row in table.rows if row.attack == attack]
        shown = [DIVERGED if r.diverged else number(r.last) + _success(r.success) for r in cells]
        grid.add_row(escape(attack), *shown)
    return grid


def _success(value: float) -> str:
    return f" ({value:.0%})" if value == value else ""
