"""Federated training on one laptop, and for real with the same code.

The Python face: `shoal.run` a scenario, `shoal.simulate` with data and a model of your own, and work with
the `Run` that comes back; docs/python.md shows how. Names are imported on first use, so that
`import shoal` itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.api.result import Run
    from shoal.api.running import resume, run, simulate
    from shoal.api.scenarios import EditableScenario as Scenario
    from shoal.api.sweeping import sweep
    from shoal.simulations.callbacks import Callback
    from shoal.simulations.engine.session import Engine

__all__ = ["Callback", "Engine", "Run", "Scenario", "resume", "run", "simulate", "sweep"]

_PLACES = {
    "Callback": "shoal.simulations.callbacks:Callback",
    "Engine": "shoal.simulations.engine.session:Engine",
    "Run": "shoal.api.result:Run",
    "Scenario": "shoal.api.scenarios:EditableScenario",
    "resume": "shoal.api.running:resume",
    "run": "shoal.api.running:run",
    "simulate": "shoal.api.running:simulate",
    "sweep": "shoal.api.sweeping:sweep",
}


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is used first (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = _PLACES[name].partition(":")
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
