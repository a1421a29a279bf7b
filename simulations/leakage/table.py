"""Prints the results of attacks on a run to the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shoal.simulations.console import make_console
from shoal.simulations.report import leakage as texts

_LEFT = ("Attack", "How")


def print_leakage(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the content of leakage.json as tables and sentences."""
    console = console or make_console()
    tables = (
        ("Was a row trained on?", texts.MEMBERSHIP_HEAD, texts.membership_rows(content)),
        ("The same by client", texts.CLIENTS_HEAD, texts.client_rows(content)),
        ("Rows from a single update", texts.INVERSION_HEAD, texts.inversion_rows(content)),
    )
    for name, head, rows in tables:
        if rows:
            console.print(_table(name, head, rows))
            console.print()
    for sentence in (texts.guarantee(content), *texts.bound(content), *texts.skipped(content)):
        console.print(escape(sentence), highlight=False)


def _table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(
        title=name, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for place, column in enumerate(head):
        table.add_column(column, justify="left" if column in _LEFT or not place else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
