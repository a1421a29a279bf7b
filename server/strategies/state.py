"""The state of a strategy between rounds, for checkpoints.

The user's own strategy can define it with two methods:

    def state_dict(self) -> dict           # numbers, texts, arrays, Flower records, lists and dicts of these
    def load_state_dict(self, state: dict)

Any other strategy, including Flower's, is saved by its attributes of these kinds. Attributes of other kinds
(functions, for example) are assumed to be as the constructor makes them; a strategy inside a strategy is
saved in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flwr.serverapp.strategy import Strategy

from shoal.server.checkpoint import can_encode

_OWN: Final = "state_dict"


def state_of(strategy: Strategy) -> dict[str, Any]:
    """Return the state of a strategy, in types that a checkpoint can store."""
    own = getattr(strategy, "state_dict", None)
    if callable(own):
        return {_OWN: own()}
    return {
        name: state_of(value) if isinstance(value, Strategy) else value
        for name, value in vars(strategy).items()
        if isinstance(value, Strategy) or can_encode(value)
    }


def left_out_of(strategy: Strategy) -> list[str]:
    """Return the attributes, except functions, that `state_of` omits, as "name (type)"."""
    if callable(getattr(strategy, "state_dict", None)):
        return []
    return [
        f"{name} ({type(value).__name__})"
        for name, value in vars(strategy).items()
        if not (isinstance(value, Strategy) or callable(value) or can_encode(value))
    ]


def restore(strategy: Strategy, state: Mapping[str, Any]) -> None:
    """Restore the output of `state_of` in a strategy that was created with the same arguments."""
    if _OWN in state:
        strategy.load_state_dict(state[_OWN])  # type: ignore[attr-defined]
        return
    for name, value in state.items():
        inner = getattr(strategy, name, None)
        if isinstance(inner, Strategy):
            restore(inner, value)
        else:
            setattr(strategy, name, value)
