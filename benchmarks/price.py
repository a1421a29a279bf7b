"""The price of privacy: what each budget costs every site of the medical and the finance scenario.

The same runs as `shoal privacy-table SCENARIO --set secure.aggregation=true`, one seed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks import results
from shoal.common.journal import plain
from shoal.simulations.results.text import NONE, metric_name
from shoal.simulations.sweeps.privacy import PrivacyTableRow, run_privacy_table

SCENARIOS: Final = {
    "medical-thyroid": "Thyroid records of five referral sources",
    "finance-lending": "Loans in 34 states",
}
_UNITS: Final = ("record", "client")
_BUDGETS: Final = (8.0, 3.0, 1.0)
_SHARED: Final = ("secure.aggregation=true", "output.compare=false", "resources.backend=serial")


def main(*, quick: bool = False) -> None:
    """Run both tables and write results/price-*.*."""
    for name, title in list(SCENARIOS.items())[: 1 if quick else None]:
        settings = [*_SHARED, *(("training.rounds=1",) if quick else ())]
        with tempfile.TemporaryDirectory(prefix="shoal-price-") as folder:
            given = (_UNITS[:1], _BUDGETS[:1]) if quick else (_UNITS, _BUDGETS)
            metric, rows = run_privacy_table(name, *given, settings, Path(folder), print)
        save(name, title, metric, rows)


def save(name: str, title: str, metric: str, rows: Sequence[PrivacyTableRow]) -> None:
    """Write one table: a row for each site, a column for each budget."""
    columns = ["site", *(_label(row) for row in rows)]
    sites = list(rows[0].sites)
    table: list[list[object]] = [
        [site, *(_value(row.sites.get(site, math.nan)) for row in rows)] for site in sites
    ]
    table.append(["mean over sites", *(_value(row.mean) for row in rows)])
    table.append(["worst site", *(_value(row.worst) for row in rows)])
    notes = [
        f"{metric_name(metric)} of the federated model on each site's test rows, seed 1, secure aggregation "
        "on. One seed: differences of a few hundredths may be chance, at sites with few test rows of tenths.",
    ]
    data = plain({"metric": metric, "rows": [asdict(row) | {"run": ""} for row in rows]})
    heading = f"{title}: {metric_name(metric)} by budget"
    results.save(f"price-{name}", heading, columns, table, notes=notes, data=data)


def _label(row: PrivacyTableRow) -> str:
    return "no guarantee" if math.isinf(row.budget) else f"{row.unit}, ε {row.budget:g}"


def _value(number: float) -> object:
    return f"{number:.3f}" if math.isfinite(number) else NONE
