"""The privacy account of a population: every use of its rows, over all runs and changes of the data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from shoal.common.errors import BudgetError
from shoal.common.journal import now
from shoal.common.privacy.accounting import Accountant, Charge, Sampling, epsilon, over
from shoal.common.privacy.charges import Charges

TRAINING = "train"  # the first word of the stage of a training round


@dataclass(frozen=True, slots=True)
class Use:
    """One use of the rows, whose result leaves the site.

    Attributes:
        stage: what for, e.g. "train 3".
        unit: what it protects, as `privacy.unit`; "none" for a result in the clear.
        charge: what it costs a member, without amplification by a sampling of clients that the server does;
            `None` in the clear.
        delta, accountant: of the guarantee.
    """

    stage: str
    unit: str = "none"
    charge: Charge | None = None
    delta: float = 1e-5
    accountant: Accountant = "rdp"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a population has spent since its last reset.

    Attributes:
        epsilon: of all protected uses together, at `delta`, the largest of any.
        member: what it protects: "training row" if any use protects rows only, else "client".
        runs: number of runs; rounds: rounds of training; in_clear: uses without a guarantee.
    """

    epsilon: float
    delta: float
    member: str
    runs: int
    rounds: int
    in_clear: int


class PopulationAccount:
    """The account of one population of patients or customers, whatever file or run their rows are used in.

    Args:
        charges: its file, or memory; run: the current run.
        limit: largest epsilon over the population's lifetime.
    """

    def __init__(self, charges: Charges, run: str, limit: float = math.inf) -> None:
        self._charges = charges
        self._run = run
        self._limit = limit
        self._question = ""

    def ask(self, question: str) -> None:
        """Begin to answer a question; what it spends is charged once, however often it is answered anew."""
        self._question = question

    def spend(self, use: Use) -> None:
        """Charge a use durably, before it is done.

        Raises:
            BudgetError: the population's lifetime limit does not allow it.
            OSError: the account cannot be written; then nothing is charged.
        """
        if self._charged(use):
            return
        entry = _entry(use)
        if use.charge is not None and math.isfinite(self._limit):
            self._require([*self._entries, entry])
        self._charges.add({"time": now(), "run": self._run, "question": self._question, **entry})

    def rounds_with(self, use: Use) -> int:
        """Return the number of charged training rounds of this run, including this one."""
        return self.rounds + (not self._charged(use))

    def _charged(self, use: Use) -> bool:
        return bool(self._question) and any(
            (one.get("run"), one["question"], one["stage"]) == (self._run, self._question, use.stage)
            for one in self._entries
        )

    def require_run(self, uses: Sequence[Use]) -> Spent:
        """Return what will be spent after the current run, all of whose uses are given.

        Raises:
            BudgetError: it would exceed the lifetime limit.
        """
        others = [one for one in self._entries if one.get("run") != self._run]
        return self._require([*others, *map(_entry, uses)])

    def _require(self, entries: Sequence[Mapping[str, Any]]) -> Spent:
        after = spent_in(entries)
        if over(after.epsilon, self._limit):
            raise BudgetError(
                f"this population's lifetime epsilon would be {after.epsilon:.4g} at delta {after.delta:g}; "
                f"its limit is {self._limit:g}, spent so far are {self.spent.epsilon:.4g}",
                hint="`shoal privacy account` shows it; only the site can raise --lifetime-epsilon",
            )
        return after

    @property
    def rounds(self) -> int:
        """Number of charged training rounds of this run; a round with two different answers counts twice."""
        return sum(one.get("run") == self._run and _is_training(one) for one in self._entries)

    @property
    def spent(self) -> Spent:
        """What the population has spent since its last reset."""
        return spent_in(self._entries)

    @property
    def _entries(self) -> Sequence[Mapping[str, Any]]:
        return since_reset(self._charges.entries)


def account_of(data: Path) -> Path:
    """Return the usual file of the account of the people in a data file."""
    return data.with_name(f"{data.name}.privacy.jsonl")


def since_reset(entries: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the uses after the last reset."""
    resets = [k for k, one in enumerate(entries) if "reset" in one]
    return entries[resets[-1] + 1 :] if resets else entries


def spent_in(entries: Sequence[Mapping[str, Any]]) -> Spent:
    """Compose uses; entries as they are in the file."""
    counts: Counter[Charge] = Counter()
    protected = [one for one in entries if "noise_multiplier" in one]
    for one in protected:
        charge = _charge_of(one)
        counts[replace(charge, count=1)] += charge.count
    delta = max((float(one["delta"]) for one in protected), default=math.nan)
    rdp = any(one["accountant"] == "rdp" for one in protected)
    rounds = {
        (one.get("run"), one.get("question") or k) for k, one in enumerate(entries) if _is_training(one)
    }
    charges = tuple(replace(charge, count=count) for charge, count in counts.items())
    return Spent(
        epsilon=epsilon(charges, delta, "rdp" if rdp else "pld") if charges else 0.0,
        delta=delta,
        member="training row" if any(one["unit"] == "record" for one in protected) else "client",
        runs=len({one.get("run") for one in entries if one.get("run")}),
        rounds=len(rounds),
        in_clear=len(entries) - len(protected),
    )


def _entry(use: Use) -> dict[str, Any]:
    entry: dict[str, Any] = {"stage": use.stage, "unit": use.unit}
    if use.charge is not None:
        entry |= {
            "noise_multiplier": use.charge.noise_multiplier,
            "count": use.charge.count,
            "sampling": use.charge.sampling,
            "share": use.charge.share,
            "delta": use.delta,
            "accountant": use.accountant,
        }
    return entry


def _charge_of(entry: Mapping[str, Any]) -> Charge:
    sampling = cast(Sampling, entry["sampling"])
    return Charge(float(entry["noise_multiplier"]), int(entry["count"]), sampling, float(entry["share"]))


def _is_training(entry: Mapping[str, Any]) -> bool:
    return str(entry["stage"]).split(" ", 1)[0] == TRAINING
