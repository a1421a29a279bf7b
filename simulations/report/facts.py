"""What a run folder holds, read once: for the assessment in the report, and for the bundle's documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.common.audit.check import Chain, read_chain
from shoal.common.audit.log import AUDIT_LOG
from shoal.common.config import Scenario
from shoal.common.events import RoundRow, SiteRow
from shoal.simulations.results.folder import SERVED
from shoal.simulations.results.sites import monitored_metric, tested_metrics

if TYPE_CHECKING:
    import pyarrow as pa

    from shoal.simulations.results.folder import RunFolder, Status


@dataclass(frozen=True, slots=True)
class Left:
    """Messages of one kind that one site has sent.

    Attributes:
        site: its name; kind: what was asked; messages: how many; bytes: of their payloads.
    """

    site: str
    kind: str
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run folder holds.

    Attributes:
        scenario, status, rounds, sites: of the run; environment, overview, summary: its files.
        failed: requests without a result; asked: requests in rounds.
        left: by site and kind; `logged` says whether it is of the audit log, which has all messages, or of
            the rounds' rows, which have training and evaluation only.
        pilot: whether the sites were elsewhere; chain: the server's audit log, or `None`.
        leakage: what attacks on the run found; empty if there were none.
    """

    scenario: Scenario
    status: Status
    environment: Mapping[str, Any]
    overview: Mapping[str, Any]
    summary: Mapping[str, Any]
    rounds: Sequence[RoundRow]
    sites: Sequence[SiteRow]
    failed: int
    asked: int
    left: Sequence[Left]
    logged: bool
    pilot: bool
    chain: Chain | None
    leakage: Mapping[str, Any]

    @classmethod
    def of(cls, run: RunFolder, clients: pa.Table | None = None) -> Facts:
        """Read a run folder; `clients` is what its method of that name returns, where it is there already."""
        import pyarrow.compute as pc

        log = run.path / AUDIT_LOG
        chain = read_chain(log) if log.exists() else None
        logged = None if chain is None else _left_of_log(chain)
        clients = run.clients() if clients is None else clients
        return cls(
            scenario=run.scenario(),
            status=run.status(),
            environment=run.environment(),
            overview=run.overview(),
            summary=run.summary(),
            rounds=run.round_rows(),
            sites=run.sites(),
            failed=int(pc.sum(pc.not_equal(clients["error"].cast("string"), "")).as_py() or 0),
            asked=clients.num_rows,
            left=_left_of_rows(clients) if logged is None else logged,
            logged=logged is not None,
            pilot=(run.path / SERVED).exists(),
            chain=chain,
            leakage=run.leakage(),
        )

    @property
    def metric(self) -> str | None:
        """The metric that choices were made by."""
        return monitored_metric(self.scenario.training, tested_metrics(self.sites))


def _left_of_log(chain: Chain) -> list[Left] | None:
    """Return what each site sent; `None` where a reply stands for several, as only a simulation has it."""
    from shoal.server.exchange import POOLED_NAME  # imports Flower

    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for entry in chain.messages():
        if "others" in entry:
            return None
        if entry["direction"] == "received" and entry["peer"] != POOLED_NAME:
            key = entry["peer"], entry["kind"]
            before, total = totals.get(key, (0, 0))
            totals[key] = before + 1, total + entry["bytes"]
    return [Left(*key, *found) for key, found in totals.items()]


def _left_of_rows(clients: Any) -> list[Left]:
    grouped = clients.group_by(["name", "phase"]).aggregate([("client", "count"), ("bytes_up", "sum")])
    return [
        Left(row["name"], row["phase"], row["client_count"], row["bytes_up_sum"])
        for row in grouped.to_pylist()
    ]
