"""Our Flower Grid: passes messages to an executor and returns replies in a fixed order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from threading import Lock
from typing import Protocol

from flwr.app import Message, RecordDict
from flwr.app.user_config import UserConfigValue
from flwr.serverapp import Grid

from shoal.clients.state import ClientStateStore, MemoryStateStore, StateBatch, joined
from shoal.clients.worker import Answer, Job
from shoal.common.flower_shim import Run, client_error, number_message, numbered
from shoal.common.messages.table import MESSAGES
from shoal.common.sites import Sites
from shoal.simulations.engine.chunks import Chunk, make_chunks
from shoal.simulations.engine.placement import NodeLoad


class Executor(Protocol):
    """Runs chunks: in this process, or on Ray workers."""

    def execute(
        self,
        chunks: Sequence[Chunk],
        jobs: Sequence[Sequence[Job]],
        states: Sequence[StateBatch | None],
        timeout_s: float | None,
    ) -> Sequence[Sequence[Answer] | None]:
        """Return the answers of each chunk, in order; `None` for a chunk that missed the deadline.

        Args:
            chunks: to run; jobs: of each chunk; states: of the chunk's clients that have one.
            timeout_s: seconds for all chunks together.
        """
        ...

    def placement(self) -> list[NodeLoad]:
        """Return the work of each node so far; empty if everything runs in this process."""
        ...

    def close(self) -> None:
        """Release processes and memory."""
        ...


class EngineGrid(Grid):
    """A Grid over an executor.

    A client costs nothing until a message reaches it: node ids are a range, and only clients with a non-empty
    `Context.state` have an entry here.
    """

    def __init__(
        self,
        executor: Executor,
        sites: Sites,
        run: Run,
        *,
        clients_per_chunk: int = 0,
        examples: Callable[[int], float] = lambda client: 1.0,
        contexts: MutableMapping[int, RecordDict] | None = None,
        states: ClientStateStore | None = None,
        pooled: bool = False,
    ) -> None:
        """Set up a Grid.

        Args:
            executor: runs the clients.
            sites: the clients.
            run: Flower's description of the run.
            clients_per_chunk: clients that a worker takes at a time; 0 for the default of `make_chunks`.
            examples: client index → rows, for starting the longest chunks first.
            contexts: node id → initial `Context.state`; updated in place.
            states: store of the clients' algorithm states; `None` for one in memory.
            pooled: whether there is a node behind the clients', which has the rows of all of them.
        """
        self._executor = executor
        self._sites = sites
        self._nodes = range(sites.node(0), sites.node(sites.count + pooled))
        self._run = run
        self._clients_per_chunk = clients_per_chunk
        self._examples = examples
        self._contexts = {} if contexts is None else contexts
        self._states: ClientStateStore = MemoryStateStore() if states is None else states
        self._waiting: dict[str, Message] = {}
        self._lock = Lock()

    def set_run(self, run: Run) -> None:
        """Set Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    @property
    def contexts(self) -> Mapping[int, RecordDict]:
        """Node id → `Context.state`, for clients whose state is not empty."""
        return self._contexts

    def placement(self) -> list[NodeLoad]:
        """Return the work of each node so far."""
        return self._executor.placement()

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; part of Flower's interface."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> range:
        """Return all node ids."""
        return self._sites.node_ids

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run the messages and keep their replies until they are pulled."""
        pushed = numbered(messages, self._nodes)
        for reply in self._exchange(pushed, None):
            self._waiting[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to pushed messages, each once."""
        return [self._waiting.pop(i) for i in message_ids if i in self._waiting]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Run the messages and return their replies by ascending node id.

        Several messages to one node are run in their order, one after another.

        Args:
            messages: to nodes of this Grid; one to another node has no reply, as in Flower.
            timeout: seconds after which only the replies received so far are returned.
        """
        return self._exchange(numbered(messages, self._nodes), timeout)

    def _exchange(self, messages: list[Message], timeout: float | None) -> list[Message]:
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        for wave in _waves(messages):
            left = None if end is None else max(0.0, end - time.monotonic())
            replies += self._exchange_wave(wave, left)
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def _exchange_wave(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """Run messages to different nodes."""
        chunks = make_chunks(messages, self._clients_per_chunk, self._of_client)
        jobs = [[self._job(message) for message in chunk.messages] for chunk in chunks]
        with self._lock:  # strategies may send from several threads
            states = [self._states_of(chunk) for chunk in chunks]
            found = self._executor.execute(chunks, jobs, states, timeout)
            self._remember(found)
        asked = {message.metadata.dst_node_id: message for message in messages}
        return [
            reply
            for answers in found
            if answers is not None
            for answer in answers
            for reply in self._replies(asked, answer)
        ]

    def _states_of(self, chunk: Chunk) -> StateBatch | None:
        """Return the states of a chunk's clients; `None` if there are none or the request needs none."""
        kind = MESSAGES.get(chunk.messages[0].metadata.message_type)
        if kind is None or not kind.state:
            return None
        clients = [self._sites.client(message.metadata.dst_node_id) for message in chunk.messages]
        batch = self._states.read(clients)
        return batch if len(batch) else None

    def _remember(self, found: Iterable[Iterable[Answer] | None]) -> None:
        """Store the new client states of all answers of a phase in one write."""
        new = [answer.states for answers in found for answer in answers or () if answer.states is not None]
        if new:
            self._states.write(joined(new))

    def _of_client(self, message: Message) -> float:
        return self._examples(self._sites.client(message.metadata.dst_node_id))

    def _job(self, message: Message) -> Job:
        meta = message.metadata
        node = meta.dst_node_id
        return Job(node, self._sites.client(node), meta.message_type, meta.group_id, self._contexts.get(node))

    def _replies(self, asked: Mapping[int, Message], answer: Answer) -> list[Message]:
        """Return the replies in an answer: one content, or an error for each client."""
        if answer.state is not None and (answer.state or answer.nodes[0] in self._contexts):
            self._contexts[answer.nodes[0]] = answer.state
        if answer.content is not None:
            replies = [Message(answer.content, reply_to=asked[answer.nodes[0]])]
        else:
            replies = [Message(client_error(answer.error), reply_to=asked[node]) for node in answer.nodes]
        for reply in replies:
            number_message(reply)
        return replies


def _waves(messages: list[Message]) -> list[list[Message]]:
    """Divide messages so that each node has at most one in a wave, and its messages keep their order."""
    waves: list[list[Message]] = []
    before: Counter[int] = Counter()
    for message in messages:
        node = message.metadata.dst_node_id
        if before[node] == len(waves):
            waves.append([])
        waves[before[node]].append(message)
        before[node] += 1
    return waves


def run_config_values(values: Mapping[str, object]) -> dict[str, UserConfigValue]:
    """Select the values that Flower's run config can hold."""
    return {k: v for k, v in values.items() if isinstance(v, bool | int | float | str)}
