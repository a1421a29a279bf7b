"""Where workers were, and what each node has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class NodeLoad:
    """One node of a Ray cluster over a run.

    Attributes:
        node: first 8 hex digits of Ray's id of it, as `ray list nodes` shows it.
        workers: that have started on it; lost: of these, how many died before they were told to.
        messages: to clients, that its workers have answered.
        seconds: that its workers were busy, summed.
        bytes_down: payload sent to the node, once a phase however many workers it has; bytes_up: of the
            answers from it.
    """

    node: str
    workers: int = 0
    lost: int = 0
    messages: int = 0
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
