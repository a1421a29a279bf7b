"""Malicious clients in simulations, to measure what attacks do and what defences prevent.

`catalog.ATTACKS` is the registry. A new attack is a class in this package, a row in the registry, and a test
of its formula.
"""

from __future__ import annotations

from shoal.simulations.attacks.catalog import ATTACKS, check

__all__ = ["ATTACKS", "check"]
