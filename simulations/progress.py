"""Progress of a run: a live table on a terminal, otherwise one line per round."""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from shoal.common.config import Scenario
from shoal.common.events import ClientRow, RoundRow, SiteRow
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.simulations.console import make_console
from shoal.simulations.results.site_table import site_table
from shoal.simulations.results.sites import monitored_metric
from shoal.simulations.results.text import count, duration, metric_name, number, rate, round_line

VISIBLE = 12  # rounds in the live table
RECENT = 5  # rounds whose mean time predicts the remaining time


class ProgressDisplay:
    """An `Observer` that displays each event.

    Use it in a `with` statement, so that Ctrl-C restores the terminal.

    Args:
        scenario: what runs.
        console: where to show it; `None` means the standard output.
    """

    def __init__(self, scenario: Scenario, console: Console | None = None) -> None:
        self._scenario = scenario
        self._private = mechanism_of(scenario.privacy).guarantees
        self._console = console or make_console()
        self._rows: deque[RoundRow] = deque(maxlen=VISIBLE)
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._best: int | None = None
        self._metric: str | None = None
        self._live: Live | None = None
        self._since = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Keep the last table and restore the terminal; later calls do nothing."""
        if self._live:
            self._live.stop()
            self._live = None
            atexit.unregister(self.close)

    def on_message(self, text: str) -> None:
        """Show a step outside the rounds."""
        self._console.print(escape(text), highlight=False, soft_wrap=not self._console.is_terminal)

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        """Show a round."""
        self._rows.append(row)
        self._since = time.monotonic()
        if row.round:
            self._seconds.append(row.seconds)
        if row.best and not self._private:
            self._best = row.round
        self._metric = monitored_metric(self._scenario.training, row.metrics) or self._metric
        if not self._console.is_terminal:
            line = round_line(row, self._scenario, left=self.seconds_left())
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif self._live is None:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2)
            self._live.start(refresh=True)
            atexit.register(self.close)  # otherwise an error outside a `with` leaves the cursor hidden
        else:
            self._live.refresh()

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        """Show the final test by site."""
        self.close()
        table = site_table(rows, self._scenario, self._console.width)
        if table is not None:
            self._console.print(table)

    def seconds_left(self) -> float | None:
        """Return the expected seconds until the last round; `None` before the first has been timed."""
        if not self._seconds:
            return None
        # The first round also starts workers and compiles, so it does not predict the others.
        recent = list(self._seconds)
        if len(recent) > 1 and self._rows[-1].round <= RECENT:
            recent = recent[1:]
        left = self._scenario.training.rounds - self._rows[-1].round
        return left * sum(recent) / len(recent)

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("round", justify="right")
        table.add_column("cohort", justify="right")
        table.add_column("train loss", justify="right")
        table.add_column(metric_name(self._metric) if self._metric else "metric", justify="right")
        table.add_column("")
        if self._private:
            table.add_column("ε", justify="right")
        table.add_column("clients/s", justify="right")
        table.add_column("time", justify="right")
        for row in self._rows:
            table.add_row(*self._cells(row))
        return Group(table, self._footer())

    def _cells(self, row: RoundRow) -> list[str | Text]:
        failed = row.cohort - row.succeeded
        cohort = Text(count(row.cohort) if row.round else "")
        if failed:
            cohort = Text(f"{count(row.succeeded)}/{count(row.cohort)}", style="red")
        value = row.metrics.get(self._metric) if self._metric else None
        best = row.round == self._best
        return [
            f"{row.round}",
            cohort,
            number(row.train_loss) if row.round else "",
            Text(number(value), style="bold green" if best else ""),
            Text("★ best" if best else "", style="green"),
            *([number(row.epsilon)] if self._private else []),
            rate(row.succeeded, row.seconds) if row.round else "",
            duration(row.seconds),
        ]

    def _footer(self) -> Text:
        last, rounds = self._rows[-1].round, self._scenario.training.rounds
        if last >= rounds:
            return Text(f"{rounds} rounds done", style="dim")
        elapsed = time.monotonic() - self._since
        left = self.seconds_left()
        eta = f"  about {duration(max(left - elapsed, 0))} left" if left is not None else ""
        return Text(f"round {last + 1} of {rounds}: {duration(elapsed)}{eta}", style="dim")
