"""Strategies by name: those of Flower, unmodified, or the user's own class."""

from __future__ import annotations

from server.strategies.catalog import STRATEGIES
from server.strategies.making import check, make

__all__ = ["STRATEGIES", "check", "make"]
