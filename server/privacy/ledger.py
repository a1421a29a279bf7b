"""The privacy ledger of a run: the budget spent so far, and whether another round is allowed.

A round is charged before any of its results are sent, in a file that is durable when the call returns: a run
that is killed and resumed finds every round charged whose results may have been revealed.

- unit "client", trusted server: a round releases one noisy sum. If cohorts are sampled, and their members
  secret, all clients have spent the same, amplified by the sampling.
- unit "local", and unit "client" with secure aggregation: the guarantee holds against the server, which knows
  whom it asks. The ledger reports the spending of the client that took part most often.
- unit "record": each client accounts for its own rows (`common/privacy/record.py`) and reports what it has
  spent. Rows of different clients are different rows, so the largest value counts. Under secure aggregation
  it reports nothing, as that would reveal its number of rows: then the budget, which no client exceeds, is
  the bound.

With noise from a seed, a round that is repeated after a crash gives the same bits, and is charged once.
With noise that cannot be repeated, it is another release, and is charged again.
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
from shoal.common.privacy.accounting import Charge, epsilon
from shoal.common.privacy.charges import Charges
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import Source
from shoal.common.privacy.plan import ClientPrivacyPlan


class Ledger(Protocol):
    """Keeps the privacy account of a run."""

    def affords(self) -> bool:
        """Return whether another round stays within the budget."""
        ...

    def charge(self, number: int, clients: Sequence[int]) -> None:
        """Charge a round before its requests are sent."""
        ...

    def hear(self, rows: Sequence[ClientRow]) -> None:
        """Record the accounts that clients report."""
        ...

    @property
    def epsilon(self) -> float:
        """Epsilon spent so far; NaN without differential privacy."""
        ...

    @property
    def charges(self) -> tuple[Charge, ...]:
        """The charges that `epsilon` composes; empty if only the clients know them."""
        ...

    @property
    def epsilon_known_cohorts(self) -> float:
        """Epsilon against someone who knows which clients took part in each round."""
        ...


class NoLedger:
    """The ledger of a run without a guarantee."""

    epsilon = math.nan
    epsilon_known_cohorts = math.nan
    charges: tuple[Charge, ...] = ()

    def affords(self) -> bool:
        """Return true: any number of rounds is allowed."""
        return True

    def charge(self, number: int, clients: Sequence[int]) -> None:
        """Do nothing."""

    def hear(self, rows: Sequence[ClientRow]) -> None:
        """Do nothing."""


class RecordLedger:
    """The ledger of unit "record": the accounts that clients report. They sample rows, not the server."""

    charges: tuple[Charge, ...] = ()

    def __init__(self, budget: float, epsilon: float = 0.0) -> None:
        self._budget = budget
        self._next = 0.0
        self.epsilon = epsilon

    @property
    def epsilon_known_cohorts(self) -> float:
        """The same: each client charges itself for the rounds in which it took part."""
        return self.epsilon

    def affords(self) -> bool:
        """Return whether no client would exceed its budget."""
        return self._next <= self._budget

    def charge(self, number: int, clients: Sequence[int]) -> None:
        """Do nothing: each client charges itself before it trains."""

    def hear(self, rows: Sequence[ClientRow]) -> None:
        """Record the largest account reported."""
        reports = [row.metrics for row in rows if EPSILON in row.metrics]
        self.epsilon = max([self.epsilon, *(float(numbers[EPSILON]) for numbers in reports)])
        self._next = max([0.0, *(float(numbers[EPSILON_NEXT]) for numbers in reports)])


class ClientLedger:
    """The ledger of units "client" and "local".

    Args:
        plan: of the run; path: the file; `None` keeps the account in memory only.
        repeatable: whether the same round gives the same noise again.

    Raises:
        RunError: the file cannot be read.
    """

    def __init__(self, plan: ClientPrivacyPlan, *, path: Path | None, repeatable: bool) -> None:
        self._plan = plan
        self._sampled = plan.sampling != "everyone"
        self._charges = Charges(path)
        self._repeatable = repeatable
        self._used: Counter[int] = Counter()  # client → its rounds
        for entry in self._charges.entries:
            self._used.update(entry.get("clients", ()))

    @property
    def epsilon(self) -> float:
        """Epsilon spent so far."""
        return self._plan.epsilon(self._spent())

    @property
    def charges(self) -> tuple[Charge, ...]:
        """The charges so far."""
        return self._plan.charges(self._spent())

    @property
    def epsilon_known_cohorts(self) -> float:
        """Epsilon of the client that took part most often, without amplification by sampling."""
        charges = self._plan.charges_of_a_member(self._most_used())
        return epsilon(charges, self._plan.delta, self._plan.accountant)

    def affords(self) -> bool:
        """Return whether another round stays within the budget, whoever takes part in it."""
        return self._plan.epsilon(self._spent() + 1) <= self._plan.budget

    def charge(self, number: int, clients: Sequence[int]) -> None:
        """Charge a round, durably, unless it is a repeated one with the same noise."""
        if self._repeatable and any(entry["round"] == number for entry in self._charges.entries):
            return
        self._charges.add({"round": number, "clients": list(clients)})
        self._used.update(clients)

    def hear(self, rows: Sequence[ClientRow]) -> None:
        """Do nothing: the server knows which clients took part."""

    def _spent(self) -> int:
        return len(self._charges.entries) if self._sampled else self._most_used()

    def _most_used(self) -> int:
        """Return the rounds of the client that took part most often; older ledgers name no clients."""
        unnamed = sum("clients" not in entry for entry in self._charges.entries)
        return unnamed + max(self._used.values(), default=0)


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
        epsilon: spent according to a checkpoint; NaN at the start.
    """
    privacy = scenario.privacy
    if plan is not None:
        return ClientLedger(plan, path=path, repeatable=source == "seeded")
    if mechanism_of(privacy).per_row:
        if scenario.secure.aggregation:
            return RecordLedger(math.inf, math.nan if privacy.epsilon is None else privacy.epsilon)
        spent = 0.0 if math.isnan(epsilon) else epsilon
        return RecordLedger(math.inf if privacy.epsilon is None else privacy.epsilon, spent)
    return NoLedger()
