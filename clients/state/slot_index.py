"""Which slot holds each client's state, and which slots may be written to.

A state is never overwritten in place while a mark needs it: a new state goes to a free slot, and the old slot
becomes free once no retained mark refers to it. All times are counts of journal entries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shoal.clients.state.slot_journal import ENTRY, MARK

Ints = NDArray[np.int64]


class SlotIndex:
    """The current states: 20 bytes per client up to the largest index, 16 per state kept for a mark."""

    def __init__(self) -> None:
        self.end = 0  # slots in the file
        self._slot = np.empty(0, np.int64)  # slot of each client, -1 without a state
        self._checksum = np.empty(0, np.uint32)
        self._born = np.empty(0, np.int64)  # journal entry that wrote the state
        self._free = np.empty(0, np.int64)
        self._replaced: list[tuple[Ints, Ints]] = []  # (entry that replaced it, slot), still needed by marks

    @classmethod
    def replay(cls, entries: NDArray[np.void], oldest: int) -> SlotIndex:
        """Return the index after all these journal entries, with marks before `oldest` released."""
        index = cls()
        at = np.flatnonzero(entries["client"] != MARK)
        marks = np.flatnonzero(entries["client"] == MARK) + 1
        written = entries[at]
        order = np.argsort(written["client"], kind="stable")
        clients, slots, at = written["client"][order], written["slot"][order], at[order]
        last = np.append(clients[1:] != clients[:-1], True)[: len(clients)]
        index._grow(int(clients[-1]) + 1 if len(clients) else 0)
        index._slot[clients[last]] = slots[last]
        index._checksum[clients[last]] = written["checksum"][order][last]
        index._born[clients[last]] = at[last]
        index.end = int(slots.max()) + 1 if len(slots) else 0

        born, replaced, old = at[~last], at[1:][~last[:-1]], slots[~last]
        # The last mark before each replacement: it needs the old state if that existed already.
        marked = np.append(0, marks)[np.searchsorted(marks, replaced, side="right")]
        needed = (marked > born) & (replaced >= oldest)
        index._replaced.append((replaced[needed], old[needed]))
        free = np.ones(index.end, bool)
        free[slots[last]] = False
        free[old[needed]] = False
        index._free = np.flatnonzero(free)
        return index

    def find(self, clients: Ints) -> tuple[Ints, Ints, NDArray[np.uint32]]:
        """Return the `clients` that have a state, their slots, and the checksums of their records."""
        clients = clients[clients < len(self._slot)]
        clients = clients[self._slot[clients] >= 0]
        return clients, self._slot[clients], self._checksum[clients]

    def live(self) -> tuple[Ints, Ints, NDArray[np.uint32]]:
        """Return all clients that have a state, with slots and checksums, in slot order."""
        clients = np.flatnonzero(self._slot >= 0)
        clients = clients[np.argsort(self._slot[clients])]
        return clients, self._slot[clients], self._checksum[clients]

    def allocate(self, count: int) -> Ints:
        """Return this many slots to write to, ascending; they stay free until `replace` is called."""
        reused = self._free[:count]
        return np.append(reused, np.arange(self.end, self.end + count - len(reused)))

    def replace(self, entries: NDArray[np.void], first: int, last_mark: int) -> None:
        """Record the states just written to the slots that `allocate` returned.

        Args:
            entries: of the journal; first: position of the first entry; last_mark: position of the last mark.
        """
        clients, slots = entries["client"], entries["slot"]
        self._free = self._free[len(slots) :]
        self.end = max(self.end, int(slots[-1]) + 1)
        self._grow(int(clients[-1]) + 1)
        at = np.arange(first, first + len(entries))
        had = self._slot[clients] >= 0
        old = self._slot[clients[had]]
        needed = self._born[clients[had]] < last_mark
        self._replaced.append((at[had][needed], old[needed]))
        self._add_free(old[~needed])
        self._slot[clients] = slots
        self._checksum[clients] = entries["checksum"]
        self._born[clients] = at

    def release(self, oldest: int) -> None:
        """Free the slots of states that were replaced before the mark at position `oldest`."""
        kept = []
        for at, slots in self._replaced:
            needed = at >= oldest
            self._add_free(slots[~needed])
            if needed.any():
                kept.append((at[needed], slots[needed]))
        self._replaced = kept

    def _add_free(self, slots: Ints) -> None:
        if len(slots):
            self._free = np.sort(np.append(self._free, slots))

    def _grow(self, clients: int) -> None:
        more = clients - len(self._slot)
        if more > 0:
            more = max(more, len(self._slot) // 2)  # so that a growing index is rarely copied
            self._slot = np.append(self._slot, np.full(more, -1))
            self._checksum = np.append(self._checksum, np.zeros(more, np.uint32))
            self._born = np.append(self._born, np.zeros(more, np.int64))


def entries_of(clients: Ints, slots: Ints, checksums: NDArray[np.uint32]) -> NDArray[np.void]:
    """Return the journal entries for states just written."""
    entries = np.empty(len(clients), ENTRY)
    entries["client"], entries["slot"], entries["checksum"] = clients, slots, checksums
    return entries
