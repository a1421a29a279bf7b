"""Clients that misbehave, in simulations: to see what an attack does, and what a defence saves.

`catalog.ATTACKS` is the registry. A new attack is a class here, a row there, and a test of its formula.
"""

from __future__ import annotations

from shoal.simulations.attacks.catalog import ATTACKS, check

__all__ = ["ATTACKS", "check"]
