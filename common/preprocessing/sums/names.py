"""A table of names that can be summed over sites and then read.

Paper: Michael T. Goodrich, Michael Mitzenmacher, "Invertible Bloom Lookup Tables", Allerton 2011.

Each name is added to one cell of each of three parts of the table. A cell is a sequence of integers: sites,
rows, two check numbers, and the bytes of the name in pairs. After summing over sites, a cell with a single
name contains `sites` times that name: it is read, checked, and removed from its other cells, which may leave
another name alone in one of them. With more than 1.23 cells per name in total, all names can be read with
high probability (Molloy, "Cores in random hypergraphs and Boolean formulas", 2005); the table has a little
more than 1.5.

Deviation: the paper's table contains each key once; here many sites add the same name, and a cell is divided
by its count of sites.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoal.common.preprocessing.sums.buckets import encode, hashed

ATTEMPTS: Final = 4  # to read a table of names, each twice as large
_PARTS: Final = 3
_HEAD: Final = 4  # sites, rows, two check numbers
_LIMB: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class NameTable:
    """The shape of a table.

    Attributes:
        column: whose names it is for.
        cells: in each of its three parts.
        name_bytes: maximum length of a name in UTF-8; longer names cannot be reported.
        attempt: number of earlier tables that were too small; each attempt hashes differently.
    """

    column: str
    cells: int
    name_bytes: int
    attempt: int = 0

    @property
    def width(self) -> int:
        """Number of integers per cell."""
        return _HEAD + math.ceil(self.name_bytes / 2)

    @property
    def size(self) -> int:
        """Total number of integers."""
        return _PARTS * self.cells * self.width

    def fits(self, name: str) -> bool:
        """Whether a name can be reported: short enough, and without zero bytes, which pad cells."""
        raw = encode(name)
        return 0 < len(raw) <= self.name_bytes and b"\0" not in raw

    def filled(self, rows: Mapping[str, int]) -> NDArray[np.int64]:
        """Return one site's table, (size,).

        Args:
            rows: of each name that it reports; all names must fit.
        """
        table = np.zeros((_PARTS * self.cells, self.width), np.int64)
        for name, count in rows.items():
            table[self._cells(name)] += self._content(name, 1, count)
        return table.ravel()

    def read(self, summed: NDArray[np.int64]) -> dict[str, tuple[int, int]] | None:
        """Return name → (sites that reported it, rows) from the sum over sites; `None` if unreadable."""
        table = summed.reshape(_PARTS * self.cells, self.width).copy()
        found: dict[str, tuple[int, int]] = {}
        waiting = np.flatnonzero(table[:, 0]).tolist()
        while waiting:
            cell = waiting.pop()
            name = self._alone(table, cell)
            if name is None:
                continue
            sites, rows = table[cell, :2].tolist()
            found[name] = (sites, rows)
            others = self._cells(name)
            table[others] -= self._content(name, sites, rows)
            waiting += others.tolist()
        return None if table.any() else found

    def _cells(self, name: str) -> NDArray[np.int64]:
        purpose = f"table {self.attempt}"
        places = hashed([name], self.column, self.cells, purpose, _PARTS)[0]
        return np.asarray(places + self.cells * np.arange(_PARTS), np.int64)

    def _content(self, name: str, sites: int, rows: int) -> NDArray[np.int64]:
        raw = encode(name)
        check = np.frombuffer(blake2b(raw, digest_size=4).digest(), "<u2")
        limbs = np.frombuffer(raw.ljust(2 * (self.width - _HEAD), b"\0"), "<u2")
        each = np.concatenate([check, limbs]).astype(np.int64) * sites
        return np.concatenate([np.array([sites, rows], np.int64), each])

    def _alone(self, table: NDArray[np.int64], cell: int) -> str | None:
        """Return the one name in a cell, or `None` if there is none or more than one."""
        sites, rows = table[cell, :2].tolist()
        if sites <= 0:
            return None
        limbs, rest = np.divmod(table[cell, _HEAD:], sites)
        if rest.any() or limbs.min() < 0 or limbs.max() >= _LIMB:
            return None
        try:
            name = limbs.astype("<u2").tobytes().rstrip(b"\0").decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None
        here = self.fits(name) and cell in self._cells(name)
        return name if here and (table[cell] == self._content(name, sites, rows)).all() else None


def cells_for(names: int, attempt: int) -> int:
    """Return the number of cells per part of a table for about this many names; each attempt doubles it."""
    return (names // 2 + 20) << attempt


def cut(
    vector: NDArray[np.int64], tables: Mapping[str, NameTable]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the part of a vector for each column's table; the tables must add up to the vector."""
    start = 0
    for column, table in tables.items():
        yield column, vector[start : start + table.size]
        start += table.size
