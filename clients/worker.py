"""What runs a ClientApp: one `Worker`, in this process or as a Ray actor."""

from __future__ import annotations

import copy
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp

from shoal.clients.cohort import CohortReply
from shoal.common import profiling
from shoal.common.errors import ShoalError
from shoal.common.flower_shim import identify_process, number_message
from shoal.common.memory import resident_bytes

AppFactory = Callable[[], ClientApp]


class Job(NamedTuple):  # a tuple, because a round pickles one for every client
    """One message to one client, without its content, which the jobs of a chunk share.

    Attributes:
        node_id: the destination; client: its index, given to the app as "partition-id".
        message_type, group_id: as in the Flower message.
        state: the client's `Context.state` from its last message; `None` while it has put nothing there.
    """

    node_id: int
    client: int
    message_type: str
    group_id: str
    state: RecordDict | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What clients answered.

    Attributes:
        content: the reply, or `None` if there is none; error: why.
        state: the new `Context.state`, `None` if it has not been touched.
        nodes: whose answer it is; several where they were answered for together, with one content.
    """

    content: RecordDict | None
    error: str
    state: RecordDict | None
    nodes: Sequence[int]


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What an app is told of the federation it runs in.

    Attributes:
        run_id: Flower's id of the run; run_config: the app's own configuration.
        clients: number of clients.
        show_errors: whether an error reply holds the text of a foreign exception, which may quote
            data; true only where driver and client are one process.
        trace: whether a worker keeps the single spans of its time, beside their sums.
    """

    run_id: int
    run_config: UserConfig
    clients: int
    show_errors: bool
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A chunk that a worker in another process is done with.

    Attributes:
        answers: of its clients; seconds: by phase; spans: behind them, if a trace is wanted.
        ended: when, on the worker's clock.
        memory: bytes that the worker holds now, 0 where the system does not tell.
    """

    answers: Sequence[Answer]
    seconds: Mapping[str, float]
    spans: Sequence[profiling.Span]
    ended: float
    memory: int


class Worker:
    """Runs one ClientApp for any client; keeps nothing of a client but what the app itself caches."""

    def __init__(self, make_app: AppFactory, federation: WorkerContext) -> None:
        identify_process(federation.run_id)
        self._federation = federation
        self._app = make_app()

    @property
    def app(self) -> ClientApp:
        """The app that answers."""
        return self._app

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        """Run the app for all jobs; a client's failure is that client's only.

        Args:
            content: the content that all jobs' messages share.
            jobs: which clients, and what kind of message.
        """
        return self._run_together(content, jobs) or [self._run_one(content, job) for job in jobs]

    def run_measured(self, content: RecordDict, jobs: Sequence[Job]) -> Finished:
        """Run as `run` does, and measure what it took."""
        profiling.keep_spans(self._federation.trace)
        profiling.take()
        answers = self.run(content, jobs)
        seconds, spans = profiling.take(), profiling.take_spans()
        return Finished(answers, seconds, spans, time.perf_counter(), resident_bytes())

    def _run_together(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer] | None:
        """Let an app that can answer for several clients at once do so, where nothing else is asked."""
        many = getattr(self._app, "many", None)
        if many is None or any(job.state for job in jobs) or len({job.message_type for job in jobs}) > 1:
            return None
        nodes = {job.client: job.node_id for job in jobs}
        try:
            parts: list[CohortReply] | None = many(jobs[0].message_type, content, sorted(nodes))
        except Exception as error:
            return [Answer(None, self._reason(error), None, sorted(nodes.values()))]
        if parts is None:
            return None
        return [
            Answer(
                part.content,
                self._reason(part.error) if part.error else "",
                None,
                [nodes[c] for c in part.clients],
            )
            for part in parts
        ]

    def _run_one(self, content: RecordDict, job: Job) -> Answer:
        # Each client gets its own containers over the shared arrays: a mod may replace records.
        own = RecordDict({name: copy.copy(record) for name, record in content.items()})
        message = Message(own, job.node_id, job.message_type, group_id=job.group_id)
        number_message(message)
        context = Context(
            run_id=self._federation.run_id,
            node_id=job.node_id,
            node_config={"partition-id": job.client, "num-partitions": self._federation.clients},
            state=RecordDict() if job.state is None else job.state,
            run_config=dict(self._federation.run_config),
        )
        try:
            reply = self._app(message, context)
        except Exception as error:
            return Answer(None, self._reason(error), context.state, [job.node_id])
        if reply.has_error():
            return Answer(None, reply.error.reason or "no reason given", context.state, [job.node_id])
        return Answer(reply.content, "", context.state, [job.node_id])

    def _reason(self, error: Exception) -> str:
        """Say what failed and where. Foreign exceptions may quote data: only their type leaves."""
        name = type(error).__name__
        if isinstance(error, ShoalError) or self._federation.show_errors:
            if not isinstance(error, ShoalError):
                traceback.print_exception(error, file=sys.stderr)
            return f"{name}: {error}"
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        where = " ← ".join(f"{f.filename}:{f.lineno} in {f.name}" for f in reversed(frames))
        return f"{name} at {where} (its text stays with the client; --backend serial shows it)"
