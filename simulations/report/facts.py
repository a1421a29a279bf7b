"""The facts in a run folder, read once: for the assessment in the report and the documents of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.common.audit.check import Chain, read_chain
from shoal.common.audit.log import AUDIT_LOG
from shoal.common.config import Scenario
from shoal.common.events import RoundRow, SiteRow
from shoal.simulations.report.verdict import Verdict, verdict_of
from shoal.simulations.results.folder import SERVED
from shoal.simulations.results.sites import monitored_metric, tested_metrics

if TYPE_CHECKING:
    import pyarrow as pa

    from shoal.simulations.results.folder import RunFolder, Status


@dataclass(frozen=True, slots=True)
class SentMessages:
    """Messages of one kind that one site sent.

    Attributes:
        site: its name; kind: the kind of message; messages: their number; bytes: total payload.
    """

    site: str
    kind: str
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The content of a run folder.

    Attributes:
        scenario, status, rounds, sites: of the run; environment, overview, summary: contents of its files.
        failed: requests without a result; asked: requests in rounds.
        sent: messages by site and kind; `logged` says whether they come from the audit log, which has all
            messages, or from the rows of the rounds, which have training and evaluation only.
        pilot: whether the sites were real; chain: the server's audit log, or `None`.
        leakage: results of attacks on the run; empty if there were none; verdict: its answer, in words.
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
    sent: Sequence[SentMessages]
    logged: bool
    pilot: bool
    chain: Chain | None
    leakage: Mapping[str, Any]
    verdict: Verdict

    @classmethod
    def of(cls, run: RunFolder, clients: pa.Table | None = None) -> Facts:
        """Read a run folder; pass `clients` if the table `run.clients()` was read already."""
        import pyarrow.compute as pc

        log = run.path / AUDIT_LOG
        chain = read_chain(log) if log.exists() else None
        logged = None if chain is None else _sent_in_log(chain)
        clients = run.clients() if clients is None else clients
        scenario, status, rounds, sites = run.scenario(), run.status(), run.round_rows(), run.sites()
        return cls(
            scenario=scenario,
            status=status,
            environment=run.environment(),
            overview=run.overview(),
            summary=run.summary(),
            rounds=rounds,
            sites=sites,
            failed=int(pc.sum(pc.not_equal(clients["error"].cast("string"), "")).as_py() or 0),
            asked=clients.num_rows,
            sent=_sent_in_rows(clients) if logged is None else logged,
            logged=logged is not None,
            pilot=(run.path / SERVED).exists(),
            chain=chain,
            leakage=run.leakage(),
            verdict=verdict_of(scenario, status, rounds, sites),
        )

    @property
    def metric(self) -> str | None:
        """The metric that selected the round."""
        return monitored_metric(self.scenario.training, tested_metrics(self.sites))

    @property
    def cohorts_are_secret(self) -> bool:
        """Whether epsilon counts on nobody knowing which clients took part in which round."""
        events = (self.summary.get("privacy") or {}).get("events") or ()
        return any(event["sampling"] != "everyone" and event["share"] < 1 for event in events)


def _sent_in_log(chain: Chain) -> list[SentMessages] | None:
    """Return what each site sent; `None` if one reply covers several sites, as in simulations only."""
    from shoal.server.exchange import POOLED_NAME  # imports Flower

    totals: dict[tuple[str, str], tuple[int, int]] = {}
    for entry in chain.messages():
        if "others" in entry:
            return None
        if entry["direction"] == "received" and entry["peer"] != POOLED_NAME:
            key = entry["peer"], entry["kind"]
            before, total = totals.get(key, (0, 0))
            totals[key] = before + 1, total + entry["bytes"]
    return [SentMessages(*key, *found) for key, found in totals.items()]


def _sent_in_rows(clients: Any) -> list[SentMessages]:
    grouped = clients.group_by(["name", "phase"]).aggregate([("client", "count"), ("bytes_up", "sum")])
    return [
        SentMessages(row["name"], row["phase"], row["client_count"], row["bytes_up_sum"])
        for row in grouped.to_pylist()
    ]
