"""Trains several clients of one process: a reply for each, or one reply for all of them.

Where the server only needs the mean of their updates, the mean is computed here instead of sending each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from shoal.clients.adversary import Adversary
from shoal.clients.local_round import Fail, LocalRound
from shoal.clients.result import CohortReply, GroupMean, LocalResult, reply_of_one
from shoal.clients.runtime import ClientRuntime
from shoal.clients.state import StateBatch
from shoal.common.arrays import count_bytes
from shoal.common.errors import NonFiniteError
from shoal.common.messages.names import TRACES, UPDATE_BYTES
from shoal.common.messages.requests import TrainRequest
from shoal.common.profiling import span
from shoal.common.weights import all_finite, weights_to_record


def train_cohort(
    runtime: ClientRuntime, request: TrainRequest, clients: Sequence[int], states: StateBatch | None = None
) -> list[CohortReply]:
    """Train clients from the server's weights for one round.

    Args:
        runtime: data and model of this process; request: from the server.
        clients: indices, ascending.
        states: of those clients that have one.

    Returns:
        A reply for each client; with `request.reduce`, one for all that succeeded first, then one for each
        that failed.
    """
    failed: list[CohortReply] = []

    def fail(client: int, error: Exception) -> None:
        failed.append(CohortReply([client], None, error))

    round_ = LocalRound(runtime, request)
    stacks = round_.train(round_.open(clients, states, fail), fail)
    if runtime.adversary is not None:
        stacks = _altered(round_, runtime.adversary, stacks, fail)
    encoded = _encoded(round_, stacks, fail)
    if not request.reduce:
        shared = {TRACES: runtime.traces}
        done = [reply_of_one(one, arrays, shared) for stack in encoded for one, arrays in stack]
        return sorted([*done, *failed], key=lambda reply: reply.clients[0])
    return _reduced(round_, runtime, encoded, failed)


_Stacks = Iterator[list[LocalResult]]
_EncodedStacks = Iterator[list[tuple[LocalResult, list[NDArray[Any]]]]]


def _reduced(
    round_: LocalRound, runtime: ClientRuntime, encoded: _EncodedStacks, failed: list[CohortReply]
) -> list[CohortReply]:
    """Return one reply for all clients with a result; its mean is over updates as the server decodes them."""
    mean, codec, like, size = GroupMean(), round_.pipeline.codec, round_.shared_start, 0
    for stack in encoded:
        with span("reduce"):
            for one, arrays in stack:
                mean.add(one, codec.decode(arrays, like))
                size = size or count_bytes(weights_to_record(arrays))  # the same for all clients
    if not mean.results:
        return failed
    return [mean.reply({TRACES: runtime.traces, UPDATE_BYTES: size}), *failed]


def _encoded(round_: LocalRound, stacks: _Stacks, fail: Fail) -> _EncodedStacks:
    """Encode each update for sending; an update that the codec cannot represent is an error."""
    codec = round_.pipeline.codec
    for stack in stacks:
        ready = []
        with span("reduce"):
            for one in stack:
                arrays = round_.pipeline.encode(one.update, one.origin)
                if codec.exact or all_finite(arrays):
                    ready.append((one, arrays))
                else:
                    fail(one.client, NonFiniteError.after_update())
        yield ready


def _altered(round_: LocalRound, adversary: Adversary, stacks: _Stacks, fail: Fail) -> _Stacks:
    """Let malicious clients change their updates, after every step that an honest client applies."""

    def honest(clients: Sequence[int]) -> list[list[NDArray[Any]]]:
        ready = round_.open(clients, None, lambda client, error: None)
        stacks = round_.one_by_one(ready, lambda client, error: None)
        return [one.update for stack in stacks for one in stack]

    for stack in stacks:
        altered = []
        for one in stack:
            sent = adversary.altered(one.update, one.origin, honest)
            if all_finite(sent):
                altered.append(replace(one, update=sent))
            else:
                fail(one.client, NonFiniteError.forged())
        yield altered
