"""What the events of a run say so far, brought up to date without parsing an event twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shoal.common.events import RoundRow, SiteRow
from shoal.common.journal import Follower
from shoal.simulations.results import rows as as_rows


@dataclass(frozen=True, slots=True)
class ReplayedRound:
    """A round that counts.

    Attributes:
        row: of the round; position: of its event in bytes, where the messages to clients are.
    """

    row: RoundRow
    position: int


class Replay:
    """The state of a run after its events so far.

    Messages to clients are left in the file: those of a large run would take gigabytes.

    Args:
        follower: of the run's events, not used before.

    Attributes:
        rounds: in order; a repeated round replaces the first one and all after it.
        sites: of the last final test; messages: (UTC time, text) of each step outside rounds.
        end: the status that the last event tells, "" if it is not the end of the run.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self.rounds: list[ReplayedRound] = []
        self.sites: list[SiteRow] = []
        self.messages: list[tuple[str, str]] = []
        self.end = ""

    def update(self) -> Replay:
        """Read the events that were added since the last call; return this.

        Raises:
            RunError: the events cannot be read, or one of them is damaged.
        """
        for position, event in self._follower.new():
            self._add(event, position)
        return self

    def _add(self, event: dict[str, Any], position: int) -> None:
        kind = event["event"]
        self.end = event["status"] if kind == "end" else ""
        if kind == "message":
            self.messages.append((event["time"], event["text"]))
        elif kind == "sites":
            self.sites = [as_rows.site_from_json(raw) for raw in event["rows"]]
        elif kind == "round":
            row = as_rows.round_from_json(event["row"])
            while self.rounds and self.rounds[-1].row.round >= row.round:
                self.rounds.pop()
            self.rounds.append(ReplayedRound(row, position))
