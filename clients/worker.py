"""Runs a ClientApp: one `Worker`, in this process or as a Ray actor."""

from __future__ import annotations

import copy
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp

from shoal.clients.result import CohortReply
from shoal.clients.state import StateBatch
from shoal.clients.state_record import batch_of, record_of
from shoal.common import profiling
from shoal.common.errors import MessageError, ShoalError
from shoal.common.flower_shim import identify_process, number_message
from shoal.common.memory import resident_bytes
from shoal.common.messages.names import CLIENT_STATE

AppFactory = Callable[[], ClientApp]


class Job(NamedTuple):  # a tuple, because one is pickled for every client of a round
    """One message to one client, without its content, which the jobs of a chunk share.

    Attributes:
        node_id: the destination; client: its index, given to the app as "partition-id".
        message_type, group_id: as in the Flower message.
        state: the client's `Context.state` after its last message; `None` if it is still empty. Algorithm
            states are not in it: they are sent as one batch for a chunk.
    """

    node_id: int
    client: int
    message_type: str
    group_id: str
    state: RecordDict | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one client, or of several together.

    Attributes:
        content: the reply, or `None` if there is none; error: the reason.
        state: the new `Context.state`; `None` if it is unchanged, or there is no reply.
        nodes: the clients that it is from; several if one content answers for them together.
        states: new algorithm states of these clients; `None` if nothing changed.
    """

    content: RecordDict | None
    error: str
    state: RecordDict | None
    nodes: Sequence[int]
    states: StateBatch | None = None


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What an app knows about the federation it runs in.

    Attributes:
        run_id: Flower's id of the run; run_config: the app's own configuration.
        clients: number of clients.
        show_errors: whether an error reply contains the text of a foreign exception, which may quote data;
            true only if driver and client are one process.
        trace: whether a worker records single spans of time, in addition to their sums.
    """

    run_id: int
    run_config: UserConfig
    clients: int
    show_errors: bool
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A chunk completed by a worker in another process.

    Attributes:
        answers: of its clients; seconds: by phase; spans: the single spans, if traced.
        ended: end time on the worker's clock.
        memory: bytes that the worker uses now; 0 if the system does not report it.
    """

    answers: Sequence[Answer]
    seconds: Mapping[str, float]
    spans: Sequence[profiling.Span]
    ended: float
    memory: int


class Runs(Protocol):
    """Runs a ClientApp: a `Worker`, or what stands in front of one."""

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        """Run the app for all jobs, like `Worker.run`."""
        ...


class Worker:
    """Runs one ClientApp for any client; keeps no client data except what the app itself caches."""

    def __init__(self, make_app: AppFactory, federation: WorkerContext) -> None:
        identify_process(federation.run_id)
        self._federation = federation
        self._app = make_app()

    @property
    def app(self) -> ClientApp:
        """The app that handles messages."""
        return self._app

    def run(self, content: RecordDict, jobs: Sequence[Job], states: StateBatch | None = None) -> list[Answer]:
        """Run the app for all jobs; a client's failure affects only that client.

        Args:
            content: the content that all jobs' messages share.
            jobs: clients and message types.
            states: of those clients that have an algorithm state.
        """
        together = self._run_together(content, jobs, states)
        return together or [self._run_one(content, job, states) for job in jobs]

    def run_measured(
        self, content: RecordDict, jobs: Sequence[Job], states: StateBatch | None = None
    ) -> Finished:
        """Run as `run` does, and measure time and memory."""
        profiling.keep_spans(self._federation.trace)
        profiling.take()
        answers = self.run(content, jobs, states)
        seconds, spans = profiling.take(), profiling.take_spans()
        return Finished(answers, seconds, spans, time.perf_counter(), resident_bytes())

    def _run_together(
        self, content: RecordDict, jobs: Sequence[Job], states: StateBatch | None
    ) -> list[Answer] | None:
        """Let an app that can answer for several clients at once do so, if the jobs allow it."""
        many = getattr(self._app, "many", None)
        if many is None or any(job.state for job in jobs) or len({job.message_type for job in jobs}) > 1:
            return None
        nodes = {job.client: job.node_id for job in jobs}
        try:
            replies: list[CohortReply] | None = many(jobs[0].message_type, content, sorted(nodes), states)
        except (Exception, SystemExit) as error:
            _require_own_exit(error)
            return [Answer(None, self._reason(error), None, sorted(nodes.values()))]
        if replies is None:
            return None
        return [
            Answer(
                reply.content,
                self._reason(reply.error) if reply.error else "",
                None,
                [nodes[c] for c in reply.clients],
                reply.states,
            )
            for reply in replies
        ]

    def _run_one(self, content: RecordDict, job: Job, states: StateBatch | None) -> Answer:
        own = _own(content)
        message = Message(own, job.node_id, job.message_type, group_id=job.group_id)
        number_message(message)
        before = _with_state(RecordDict() if job.state is None else job.state, job.client, states)
        context = Context(
            run_id=self._federation.run_id,
            node_id=job.node_id,
            node_config={"partition-id": job.client, "num-partitions": self._federation.clients},
            state=_own(before),
            run_config=dict(self._federation.run_config),
        )
        given = context.state.get(CLIENT_STATE)
        try:
            reply = self._app(message, context)
            if not isinstance(reply, Message):
                raise MessageError(f"the ClientApp returned a {type(reply).__name__}, expected a Message")
        except (Exception, SystemExit) as error:
            _require_own_exit(error)
            return Answer(None, self._reason(error), None, [job.node_id])
        if reply.has_error():
            return Answer(None, reply.error.reason or "no reason given", None, [job.node_id])
        changed = context.state.get(CLIENT_STATE) is not given
        remembered = batch_of(job.client, context.state) if changed else None
        kept = RecordDict({k: record for k, record in context.state.items() if k != CLIENT_STATE})
        return Answer(reply.content, "", kept, [job.node_id], remembered)

    def _reason(self, error: BaseException) -> str:
        """Return what failed and where. Foreign exceptions may quote data: only their type is sent."""
        name = type(error).__name__
        if isinstance(error, ShoalError) or self._federation.show_errors:
            if not isinstance(error, ShoalError):
                traceback.print_exception(error, file=sys.stderr)
            return f"{name}: {error}"
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = " ← ".join(f"{f.filename}:{f.lineno} in {f.name}" for f in reversed(frames))
        return f"{name} at {where} (its text stays with the client; --backend serial shows it)"


def _own(records: RecordDict) -> RecordDict:
    """Return records that a client may change without another one, or a failed call, seeing it.

    Arrays are immutable and shared; everything else is copied.
    """
    return RecordDict(
        {
            name: copy.copy(record) if isinstance(record, ArrayRecord) else copy.deepcopy(record)
            for name, record in records.items()
        }
    )


def _require_own_exit(error: BaseException) -> None:
    """Let an exit through that Ray asked for; a client that calls `sys.exit` has merely failed."""
    if hasattr(error, "ray_terminate_msg"):
        raise error


def _with_state(state: RecordDict, client: int, states: StateBatch | None) -> RecordDict:
    """Return a client's `Context.state`, including its algorithm state."""
    if states is None or client not in states.clients:
        return state
    row = int(np.searchsorted(states.clients, client))  # clients are ascending
    return RecordDict({**state, CLIENT_STATE: record_of(states, row)})
