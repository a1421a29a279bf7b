"""The privacy ledger of a run: what has been spent, and whether another round may be.

A round is charged before anything of it can leave, in a file that is durable when the call returns: a run
that is killed and goes on finds everything charged that may have been told.

- unit "client": a round releases one noisy sum. Everybody has spent the same.
- unit "local": each client releases its own noisy update, to a server that may look at it. The ledger
  tells what the client has spent that took part most often.
- unit "record": each client keeps account of its own rows (`common/privacy/record.py`) and tells what it
  has spent. Rows of different clients are different rows, so the largest counts. Under secure aggregation it
  does not tell, since that would tell how many rows it has: then the budget, which no client passes, is the
  bound.

With noise from a seed, a round that is done again after a crash gives the same bits, and is charged once.
With noise that nobody can repeat, it is another release, and is charged again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from shoal.common.config import Scenario
from shoal.common.events import ClientRow
from shoal.common.messages.names import EPSILON, EPSILON_NEXT
from shoal.common.privacy.charges import Charges
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import Source
from shoal.common.privacy.plan import ClientPrivacyPlan


class Ledger(Protocol):
    """Keeps account of a run."""

    def affords(self) -> bool:
        """Tell whether another round stays within the budget."""
        ...

    def charge(self, number: int, clients: Sequence[int]) -> None:
        """Charge a round that is about to be asked of clients."""
        ...

    def hear(self, rows: Sequence[ClientRow]) -> None:
        """Take note of what clients told of their own accounts."""
        ...

    @property
    def epsilon(self) -> float:
        """Epsilon spent so far; NaN without differential privacy."""
        ...


class NoLedger:
    """Of a run that promises nothing."""

    epsilon = math.nan

    def affords(self) -> bool:
        """Any number of rounds."""
        return True

    def charge(self, number: int, clients: Sequence[int]) -> None:
        """Do nothing."""

    def hear(self, rows: Sequence[ClientRow]) -> None:
        """Do nothing."""


class RecordLedger:
    """Of unit "record": what clients tell of their own accounts."""

    def __init__(self, budget: float, epsilon: float = 0.0) -> None:
        self._budget = budget
        self._next = 0.0
        self.epsilon = epsilon

    def affords(self) -> bool:
        """Tell whether no client would pass its budget."""
        return self._next <= self._budget

    def charge(self, number: int, clients: Sequence[int]) -> None:
        """Do nothing: each client charges itself before it trains."""

    def hear(self, rows: Sequence[ClientRow]) -> None:
        """Take the largest account told."""
        told = [row.metrics for row in rows if EPSILON in row.metrics]
        self.epsilon = max([self.epsilon, *(float(numbers[EPSILON]) for numbers in told)])
        self._next = max([0.0, *(float(numbers[EPSILON_NEXT]) for numbers in told)])


class ClientLedger:
    """Of units "client" and "local".

    Args:
        plan: of the run; apart: whether clients are charged for their own rounds only (unit "local").
        path: the file; `None` keeps the account in memory only.
        repeatable: whether the same round gives the same noise again.

    Raises:
        RunError: the file cannot be read.
    """

    def __init__(self, plan: ClientPrivacyPlan, *, apart: bool, path: Path | None, repeatable: bool) -> None:
        self._plan = plan
        self._apart = apart
        self._charges = Charges(path)
        self._repeatable = repeatable
        self._used: Counter[int] = Counter()  # client → its rounds
        for entry in self._charges.entries:
            self._used.update(entry.get("clients", ()))

    @property
    def epsilon(self) -> float:
        """What is spent so far."""
        return self._plan.epsilon(self._spent())

    def affords(self) -> bool:
        """Tell whether another round stays within the budget, whoever takes part in it."""
        return self._plan.epsilon(self._spent() + 1) <= self._plan.budget

    def charge(self, number: int, clients: Sequence[int]) -> None:
        """Charge a round, durably, unless it is one done again whose noise is the same again."""
        if self._repeatable and any(entry["round"] == number for entry in self._charges.entries):
            return
        if self._apart:
            self._charges.add({"round": number, "clients": list(clients)})
            self._used.update(clients)
        else:
            self._charges.add({"round": number})

    def hear(self, rows: Sequence[ClientRow]) -> None:
        """Do nothing: the server knows what was asked of whom."""

    def _spent(self) -> int:
        return max(self._used.values(), default=0) if self._apart else len(self._charges.entries)


def make_ledger(
    scenario: Scenario,
    plan: ClientPrivacyPlan | None,
    path: Path | None,
    source: Source,
    epsilon: float = math.nan,
) -> Ledger:
    """Return the ledger of a run.

    Args:
        scenario: gives unit and budget; plan: for units "client" and "local".
        path: of its file; source: of the noise.
        epsilon: that a checkpoint says was spent; NaN at the start.
    """
    privacy, mechanism = scenario.privacy, mechanism_of(scenario.privacy)
    if plan is not None:
        apart = mechanism.against_server
        return ClientLedger(plan, apart=apart, path=path, repeatable=source == "seeded")
    if mechanism.per_row:
        if scenario.secure.aggregation:
            return RecordLedger(math.inf, math.nan if privacy.epsilon is None else privacy.epsilon)
        spent = 0.0 if math.isnan(epsilon) else epsilon
        return RecordLedger(math.inf if privacy.epsilon is None else privacy.epsilon, spent)
    return NoLedger()
