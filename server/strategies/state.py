"""What a strategy remembers from round to round, for checkpoints.

A strategy of the user's own may say so itself, with two methods:

    def state_dict(self) -> dict           # numbers, texts, arrays, Flower records, lists and dicts of these
    def load_state_dict(self, state: dict)

Any other strategy, all stock ones among them, is saved by its attributes of these kinds. Attributes of other
kinds (functions, say) are taken to be as the constructor makes them; a strategy inside a strategy is saved
like the outer one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flwr.serverapp.strategy import Strategy

from shoal.server.checkpoint import can_encode

_OWN: Final = "state_dict"


def state_of(strategy: Strategy) -> dict[str, Any]:
    """Return what a strategy remembers, of kinds that a checkpoint holds."""
    own = getattr(strategy, "state_dict", None)
    if callable(own):
        return {_OWN: own()}
    return {
        name: state_of(value) if isinstance(value, Strategy) else value
        for name, value in vars(strategy).items()
        if isinstance(value, Strategy) or can_encode(value)
    }


def left_out_of(strategy: Strategy) -> list[str]:
    """Return the attributes that `state_of` leaves out and that are not functions, as "name (type)"."""
    if callable(getattr(strategy, "state_dict", None)):
        return []
    return [
        f"{name} ({type(value).__name__})"
        for name, value in vars(strategy).items()
        if not (isinstance(value, Strategy) or callable(value) or can_encode(value))
    ]


def restore(strategy: Strategy, state: Mapping[str, Any]) -> None:
    """Give a strategy, made anew from the same arguments, what `state_of` returned."""
    if _OWN in state:
        strategy.load_state_dict(state[_OWN])  # type: ignore[attr-defined]
        return
    for name, value in state.items():
        inner = getattr(strategy, name, None)
        if isinstance(inner, Strategy):
            restore(inner, value)
        else:
            setattr(strategy, name, value)
