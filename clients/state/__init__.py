"""Client state that an algorithm keeps between rounds, and the stores that hold it.

A state is a mapping from names to arrays, with the same names, shapes and types for all clients of a run:
SCAFFOLD's control variates, Ditto's personal models, the residues of error feedback. `ClientStateStore` is
the interface; `MemoryStateStore` keeps states in memory, `DiskStateStore` in a folder (docs/client-state.md).
"""

from shoal.clients.state.batch import StateBatch, joined
from shoal.clients.state.disk import DiskStateStore
from shoal.clients.state.layout import StateLayout
from shoal.clients.state.memory import MemoryStateStore
from shoal.clients.state.store import ClientStateStore, Mark

__all__ = [
    "ClientStateStore",
    "DiskStateStore",
    "Mark",
    "MemoryStateStore",
    "StateBatch",
    "StateLayout",
    "joined",
]
