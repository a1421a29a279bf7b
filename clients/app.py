"""The Flower `ClientApp`: answers what the server asks, from rows that stay with the client.

`common/messages/table.py` lists the message types. Each request is read as its type's closed class before
anything is done, and each reply is held to its type's schema before it leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from shoal.clients.autotune import autotune
from shoal.clients.cohort import train_cohort
from shoal.clients.evaluation import ClientEvaluation
from shoal.clients.preprocessing.statistics import local_statistics
from shoal.clients.preprocessing.sums import summand_of
from shoal.clients.result import CohortReply
from shoal.clients.runtime import ClientRuntime
from shoal.clients.secure import SecureClient
from shoal.clients.state import StateBatch
from shoal.clients.state_record import batch_of, record_of
from shoal.clients.training.alone import train_alone
from shoal.common.errors import DisclosureError
from shoal.common.messages import table
from shoal.common.messages.names import (
    ARRAYS,
    CLIENT_STATE,
    EXAMPLES,
    METRICS_RECORD,
    SECONDS,
    STEPS,
    SUMMAND,
)
from shoal.common.messages.replies import metric_record
from shoal.common.messages.requests import (
    AloneRequest,
    AutotuneRequest,
    StatisticsRequest,
    SumsRequest,
    TestRequest,
    TrainRequest,
    question,
)
from shoal.common.messages.schema import parse
from shoal.common.messages.table import MessageType, message_type
from shoal.common.preprocessing.statistics_records import pack
from shoal.common.weights import weights_to_record

State = RecordDict  # a client's `Context.state`
# (client index, request, state) → (the reply's content, the new state); nothing is changed in place
Handler = Callable[[int, Any, State], tuple[RecordDict, State]]


class RuntimeClientApp(ClientApp):
    """A ClientApp that can also answer for several clients of its process at once."""

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self._client = client

    @property
    def runtime(self) -> ClientRuntime:
        """The data and the model of this process."""
        return self._client.runtime

    def many(
        self, name: str, content: RecordDict, clients: Sequence[int], states: StateBatch | None
    ) -> list[CohortReply] | None:
        """Answer one request on behalf of several clients.

        Args:
            name: type of the message; content: what each client was sent.
            clients: indices, ascending; states: of those that have one.

        Returns:
            Replies that together hold each client once; `None` where they have to be asked one by one.
        """
        kind = message_type(name)
        if kind is table.TRAIN:
            self._client.refuse_in_clear()
            replies = train_cohort(self._client.runtime, parse(kind.request, content), clients, states)
        elif kind is table.EVALUATE:
            replies = self._client.evaluation.validate(parse(kind.request, content), clients, states)
        else:
            return None
        for reply in replies:
            if reply.content is not None:
                kind.reply.check(name, reply.content)
        return replies


def make_client_app(runtime: ClientRuntime, *, pooled: bool = False) -> RuntimeClientApp:
    """Return the ClientApp that serves the clients of a process.

    Args:
        runtime: the data and the model of this process.
        pooled: also answer `train.pooled`, which returns a model trained alone; only a simulation
            may, where no real site stands behind the data.
    """
    client = _Client(runtime)
    app = RuntimeClientApp(client)
    secure = SecureClient(runtime)
    handlers: dict[MessageType, Handler] = {
        table.STATISTICS: _stateless(client.statistics),
        table.SUMS: _stateless(client.sums),
        table.AUTOTUNE_TYPE: _stateless(client.autotune),
        table.TRAIN: client.train,
        table.EVALUATE: client.evaluate,
        table.TEST: client.test,
        table.LOCAL: _stateless(client.train_local),
        **secure_handlers(secure),
    }
    if pooled:
        handlers[table.POOLED] = _stateless(client.train_pooled)
    register(app, handlers)
    return app


def secure_handlers(client: SecureClient) -> dict[MessageType, Handler]:
    """Return the handlers of the stages of secure aggregation."""
    return {
        table.SECURE_KEYS: client.keys,
        table.SECURE_SHARES: client.shares,
        table.SECURE_TRAIN: client.train,
        table.SECURE_VECTOR: client.vector,
        table.SECURE_UNMASK: client.unmask,
    }


def register(app: ClientApp, handlers: dict[MessageType, Handler]) -> None:
    """Let an app answer types of messages."""
    for kind, handler in handlers.items():
        category, _, action = kind.name.partition(".")
        decorate = getattr(app, category)  # query, train or evaluate
        (decorate(action) if action else decorate())(_checked(kind, handler))


def _checked(kind: MessageType, answer: Handler) -> Callable[[Message, Context], Message]:
    """Wrap a handler: read the request, time the answer, check what leaves."""

    def handle(message: Message, context: Context) -> Message:
        started = time.perf_counter()
        request = parse(kind.request, message.content)
        reply, state = answer(int(context.node_config["partition-id"]), request, context.state)
        reply.metric_records[METRICS_RECORD][SECONDS] = time.perf_counter() - started
        kind.reply.check(kind.name, reply)
        context.state = state
        return Message(reply, reply_to=message)

    return handle


def _stateless(answer: Callable[[int, Any], RecordDict]) -> Handler:
    """Wrap a handler that needs no state."""
    return lambda client, request, state: (answer(client, request), state)


def _with_state(reply: CohortReply, state: State) -> tuple[RecordDict, State]:
    """Return a single client's reply and new state.

    Raises:
        Exception: why there is no reply.
    """
    if reply.content is None:
        raise reply.error or RuntimeError("the client has no result")
    if reply.states is None:
        return reply.content, state
    return reply.content, RecordDict({**state, CLIENT_STATE: record_of(reply.states, 0)})


class _Client:
    """The handlers; each serves whichever client of the process is asked."""

    def __init__(self, runtime: ClientRuntime) -> None:
        self.runtime = runtime
        self.evaluation = ClientEvaluation(runtime)

    def statistics(self, client: int, request: StatisticsRequest) -> RecordDict:
        """Aggregates of the training rows, under the disclosure rule."""
        self.refuse_in_clear()
        splits, scenario = self.runtime.raw(client), self.runtime.scenario
        reply = pack(local_statistics(splits["train"], self.runtime.schema, scenario.preprocessing))
        counts = {f"{name}-rows": shard.rows for name, shard in splits.items()}
        reply[METRICS_RECORD] = metric_record({EXAMPLES: counts["train-rows"], **counts})
        return reply

    def sums(self, client: int, request: SumsRequest) -> RecordDict:
        """What this client adds to a sum of statistics; how many rows it has does not leave."""
        self.refuse_in_clear()
        vector = summand_of(self.runtime, client, question(request))
        return RecordDict({METRICS_RECORD: metric_record({}), SUMMAND: weights_to_record([vector])})

    def autotune(self, client: int, request: AutotuneRequest) -> RecordDict:
        """Measure both execution modes on this client's rows; seconds leave."""
        return autotune(self.runtime, request, client)

    def train(self, client: int, request: TrainRequest, state: State) -> tuple[RecordDict, State]:
        """Train from the server's weights for one round; the update leaves."""
        self.refuse_in_clear()
        replies = train_cohort(self.runtime, request, [client], batch_of(client, state))
        return _with_state(replies[0], state)

    def refuse_in_clear(self) -> None:
        """Refuse what would leave by itself where only sums may.

        Raises:
            DisclosureError: they may.
        """
        if self.runtime.scenario.secure.aggregation:
            raise DisclosureError(
                "secure.aggregation is true: updates and statistics leave this client under masks only"
            )

    def evaluate(self, client: int, request: Any, state: State) -> tuple[RecordDict, State]:
        """Measure the server's weights on the validation rows."""
        replies = self.evaluation.validate(request, [client], batch_of(client, state))
        return _with_state(replies[0], state)

    def test(self, client: int, request: TestRequest, state: State) -> tuple[RecordDict, State]:
        """Measure the server's weights on the test rows, with bootstrap intervals."""
        return self.evaluation.test(client, request, batch_of(client, state)), state

    def train_local(self, client: int, request: AloneRequest) -> RecordDict:
        """Train as if there were no federation; only test metrics leave."""
        trained, steps = train_alone(self.runtime, client, request)
        numbers = self.evaluation.tested(client, self.runtime.rows(client)["test"], trained)
        return RecordDict({METRICS_RECORD: metric_record({**numbers, STEPS: steps})})

    def train_pooled(self, client: int, request: AloneRequest) -> RecordDict:
        """Train on the pooled rows of all clients; the shared weights leave (simulation only)."""
        trained, steps = train_alone(self.runtime, client, request)
        numbers = {EXAMPLES: len(self.runtime.rows(client)["train"].y), STEPS: steps}
        shared = self.runtime.weight_spec.take_shared(trained)
        return RecordDict({ARRAYS: weights_to_record(shared), METRICS_RECORD: metric_record(numbers)})
