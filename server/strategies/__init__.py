"""Strategies by name: Flower's, unmodified; shoal's own robust ones; or the user's own class."""

from __future__ import annotations

from shoal.server.strategies.catalog import STRATEGIES, needs_every_update
from shoal.server.strategies.making import check, make

__all__ = ["STRATEGIES", "check", "make", "needs_every_update"]
