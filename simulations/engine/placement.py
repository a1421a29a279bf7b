"""The nodes that workers ran on, and the work of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class NodeLoad:
    """The work of one node of a Ray cluster in a run.

    Attributes:
        node: first 8 hex digits of its Ray id, as `ray list nodes` shows it.
        workers: number started on it; lost: how many of these died unexpectedly.
        replaced: how many were replaced because of their memory.
        messages: number of client messages that its workers have answered.
        seconds: total busy time of its workers.
        bytes_down: payload sent to the node, once per phase whatever its number of workers.
        bytes_up: payload of its answers.
    """

    node: str
    workers: int = 0
    lost: int = 0
    replaced: int = 0
    messages: int = 0
    seconds: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
