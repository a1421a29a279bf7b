"""Finds the names (categories, words) that several sites have, from sums over sites alone.

First which buckets are common to sites, then the names in them as a table that can be read only as a sum, and
under noise how many rows each of these has. `common/preprocessing/sums/buckets.py` gives the probability that
a rare name is revealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.errors import DataError
from shoal.common.preprocessing.aggregates import Counts
from shoal.common.preprocessing.sums.buckets import MOST_HEAVY
from shoal.common.preprocessing.sums.layout import Layout
from shoal.common.preprocessing.sums.names import ATTEMPTS, cells_for, cut
from shoal.common.preprocessing.sums.noise import names_threshold
from shoal.common.preprocessing.sums.plan import SumsPlan
from shoal.common.preprocessing.sums.questions import Questions
from shoal.server.preprocessing.sums import SumOver

Names = Mapping[str, Mapping[str, tuple[int, int]]]  # column → name → (sites, rows)
Heavy = Mapping[str, NDArray[np.bool_]]  # column → (hashes, buckets)
_FALSE_BUCKET: Final = 0.01  # chance that noise makes a bucket heavy which too few sites hold


def heavy_buckets(
    counts: Mapping[str, NDArray[np.float64]], layout: Layout, plan: SumsPlan, spread: float
) -> Heavy:
    """Return which buckets at least min_sites sites hold; of very many only the most common.

    Args:
        counts: column → sum over sites, (hashes, buckets); layout: of the pass that they are of.
        plan: what both sides know; spread: of the sum's noise, in standard deviations of a block's.
    """
    return {
        column: _heavy(
            found,
            (plan.config.min_sites - 1) * plan.clip(layout, f"buckets {column}", spread)
            + _margin(layout.stddev(f"buckets {column}") * spread),
        )
        for column, found in counts.items()
    }


def read_names(heavy: Heavy, questions: Questions, sum_over: SumOver) -> Names:
    """Ask for the tables of names, and for larger ones of those that cannot be read.

    Raises:
        DataError: a table cannot be read however large.
    """
    names: dict[str, Mapping[str, tuple[int, int]]] = {}
    for attempt in range(ATTEMPTS):
        tables = {
            column: questions.plan.table(
                column, cells_for(int(1.2 * flags.sum(axis=1).max()), attempt), attempt
            )
            for column, flags in heavy.items()
            if column not in names
        }
        size = sum(table.size for table in tables.values())
        summed = sum_over(questions.names(heavy, tables), size)
        for column, part in cut(summed.vector, tables):
            read = tables[column].read(part)
            if read is not None:
                names[column] = read
        if len(names) == len(heavy):
            return names
    unread = ", ".join(column for column in heavy if column not in names)
    raise DataError(
        f"the names of {unread} cannot be read from the sum of {ATTEMPTS} tables",
        hint="a client adds what is not a table of names, or its software is of another version",
    )


def told_counts(found: Names) -> dict[str, Counts]:
    """Return the counts that the tables hold."""
    kept = {}
    for column, names in found.items():
        ordered = sorted(names)
        sites, rows = (tuple(names[name][i] for name in ordered) for i in (0, 1))
        kept[column] = Counts(tuple(ordered), rows, sites)
    return kept


def noisy_counts(
    parts: Mapping[str, NDArray[np.float64]],
    listed: Mapping[str, list[str]],
    layout: Layout,
    plan: SumsPlan,
    spread: float,
) -> dict[str, Counts]:
    """Return the counts of the names that are clearly common.

    Args:
        parts: column → noisy count of each name; listed: column → names.
        layout: of the pass; plan, spread: as in `heavy_buckets`.
    """
    kept = {}
    for column, names in listed.items():
        stddev = layout.stddev(column) * spread
        clip = plan.clip(layout, column, spread)
        least = max(
            (plan.config.min_sites - 1) * clip + _margin(stddev),
            names_threshold(plan.protection, stddev, plan.reach[column]),
        )
        counts = {n: round(c) for n, c in zip(names, parts[column].tolist(), strict=True) if c > least}
        # that enough sites have them is what the threshold says
        kept[column] = Counts(tuple(counts), tuple(counts.values()), (plan.config.min_sites,) * len(counts))
    return kept


def chance_of_rare(heavy: Heavy) -> float:
    """Return the largest probability, over columns, that a name of a single site is revealed."""
    return max(float(flags.mean(axis=1).prod()) for flags in heavy.values())


def _heavy(counts: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    heavy = counts > least
    most = int(MOST_HEAVY * counts.shape[1])
    for line, flags in zip(counts, heavy, strict=True):
        if flags.sum() > most:
            flags &= line > np.sort(line)[-most - 1]
    return np.asarray(heavy)


def _margin(stddev: float) -> float:
    return NormalDist().inv_cdf(1 - _FALSE_BUCKET) * stddev
