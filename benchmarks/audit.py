"""What an audit log costs: every other round of one run is logged, so that both see the same machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Final

from flwr.app import Message
from flwr.serverapp import Grid

from benchmarks import results
from benchmarks.growth_side import Case, run
from shoal.common.audit.check import read_chain
from shoal.common.audit.log import AuditLog, MessageEntry
from shoal.common.messages.table import round_of
from shoal.common.sites import Sites
from shoal.server.audit_grid import AuditGrid
from shoal.server.cohort_grid import CohortGrid

CASES: Final = {
    "100 of 1,000 clients, 2 k weights": Case(population=1000, cohort=100, rounds=21),
    "1,000 of 10,000 clients, 2 k weights": Case(population=10_000, cohort=1000, rounds=21),
    "20 clients, 250 k weights each, updates one by one": Case(
        population=20, cohort=20, rounds=21, hidden=7800, strategy="FedMedian"
    ),
}


class EveryOther(CohortGrid):
    """Logs what belongs to an even round."""

    def __init__(self, grid: Grid, logging: AuditGrid) -> None:
        super().__init__(grid, range(0))
        self._logging = logging

    def get_node_ids(self) -> Iterable[int]:  # type: ignore[override]
        return self._grid.get_node_ids()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = list(messages)
        number = round_of(asked[0].content) if asked else None
        taken: Grid = self._grid if number is None or number % 2 else self._logging
        return taken.send_and_receive(asked, timeout=timeout)


def main(*, quick: bool) -> None:
    """Measure and write the table."""
    cases = {"4 of 8 clients": Case(population=8, cohort=4, rounds=5)} if quick else CASES
    found = {name: measure(case) for name, case in cases.items()}
    rows = [[n, 1e3 * f["without"], 1e3 * f["with"], f["with"] / f["without"]] for n, f in found.items()]
    entry = one_entry(1_000 if quick else 50_000)
    results.save(
        "audit",
        "Rounds with and without an audit log",
        ["case", "ms a round without", "with", "ratio"],
        rows,
        notes=[
            "Of one run on 2 Ray workers, the even rounds are logged and the odd ones are not; medians. "
            f"An entry takes {entry['note_us']:.0f} µs to write and {entry['check_us']:.0f} µs to check; the "
            "rest is packing and hashing what the messages hold, which a pilot does anyway.",
        ],
        data={"cases": found, "entry": entry},
    )


def measure(case: Case) -> dict[str, Any]:
    """Return the median seconds of a round with and without the log."""
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
        log = AuditLog(Path(folder) / "audit.jsonl", {"side": "server"})
        sites = Sites(case.population, lambda client: f"client-{client}")
        found = run(case, lambda grid: EveryOther(grid, AuditGrid(grid, sites, log)))
        log.close()
        messages = len(read_chain(Path(folder) / "audit.jsonl").require_whole().messages())
    assert messages >= case.cohort * ((case.rounds - 1) // 2)
    # The first round is left out of `seconds`: they begin with round 2, which is logged.
    logged, plain = found.seconds[::2], found.seconds[1::2]
    return {"with": median(logged), "without": median(plain), "messages": messages, "case": asdict(case)}


def one_entry(count: int) -> dict[str, float]:
    """Return microseconds to write an entry, and to check one."""
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
        path = Path(folder) / "audit.jsonl"
        log = AuditLog(path, {"side": "server"})
        started = time.perf_counter()
        for number in range(count):
            log.note(MessageEntry("received", "client-7", "train", number, 1_000_000, "0" * 64))
        noted = time.perf_counter() - started
        log.close()
        started = time.perf_counter()
        read_chain(path).require_whole()
        checked = time.perf_counter() - started
    return {"note_us": 1e6 * noted / count, "check_us": 1e6 * checked / count}
