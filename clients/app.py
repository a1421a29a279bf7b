"""The Flower `ClientApp`: handles the server's requests, using rows that never leave the client.

`common/messages/table.py` lists the message types. Each request is parsed as its type's closed class before
any work is done, and each reply is checked against its type's schema before it is sent.
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
from shoal.clients.kernel import Use
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
# (client index, request, state) → (content of the reply, new state); arguments are not modified
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
            name: message type; content: shared by all clients.
            clients: indices, ascending; states: of those clients that have one.

        Returns:
            Replies that together cover each client once; `None` if the clients must be called one at a time.
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
        pooled: also answer `train.pooled`, which returns a model trained on all rows; only for
            simulations, where the data are not those of real sites.
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
    """Return the handlers for the stages of secure aggregation."""
    return {
        table.SECURE_KEYS: client.keys,
        table.SECURE_SHARES: client.shares,
        table.SECURE_TRAIN: client.train,
        table.SECURE_VECTOR: client.vector,
        table.SECURE_UNMASK: client.unmask,
    }


def register(app: ClientApp, handlers: dict[MessageType, Handler]) -> None:
    """Register handlers with an app, by message type."""
    for kind, handler in handlers.items():
        category, _, action = kind.name.partition(".")
        decorate = getattr(app, category)  # query, train or evaluate
        (decorate(action) if action else decorate())(_checked(kind, handler))


def _checked(kind: MessageType, answer: Handler) -> Callable[[Message, Context], Message]:
    """Wrap a handler: parse the request, time the handler, check the reply."""

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
    """Wrap a handler that does not use the state."""
    return lambda client, request, state: (answer(client, request), state)


def _with_state(reply: CohortReply, state: State) -> tuple[RecordDict, State]:
    """Return a single client's reply and new state.

    Raises:
        Exception: the reason why there is no reply.
    """
    if reply.content is None:
        raise reply.error or RuntimeError("the client has no result")
    if reply.states is None:
        return reply.content, state
    return reply.content, RecordDict({**state, CLIENT_STATE: record_of(reply.states, 0)})


class _Client:
    """The handlers; each can serve any client of the process."""

    def __init__(self, runtime: ClientRuntime) -> None:
        self.runtime = runtime
        self.evaluation = ClientEvaluation(runtime)

    def statistics(self, client: int, request: StatisticsRequest) -> RecordDict:
        """Return aggregates of the training rows, under the disclosure rule."""
        self.refuse_in_clear()
        self.runtime.spend(Use("statistics"))
        splits, scenario = self.runtime.raw(client), self.runtime.scenario
        reply = pack(local_statistics(splits["train"], self.runtime.schema, scenario.preprocessing))
        counts = {f"{name}-rows": shard.rows for name, shard in splits.items()}
        reply[METRICS_RECORD] = metric_record({EXAMPLES: counts["train-rows"], **counts})
        return reply

    def sums(self, client: int, request: SumsRequest) -> RecordDict:
        """Return this client's part of a sum of statistics, without its number of rows."""
        self.refuse_in_clear()
        vector = summand_of(self.runtime, client, question(request))
        return RecordDict({METRICS_RECORD: metric_record({}), SUMMAND: weights_to_record([vector])})

    def autotune(self, client: int, request: AutotuneRequest) -> RecordDict:
        """Measure both execution modes on this client's rows; the reply holds seconds only."""
        return autotune(self.runtime, request, client)

    def train(self, client: int, request: TrainRequest, state: State) -> tuple[RecordDict, State]:
        """Train from the server's weights for one round; the reply holds the update."""
        self.refuse_in_clear()
        replies = train_cohort(self.runtime, request, [client], batch_of(client, state))
        return _with_state(replies[0], state)

    def refuse_in_clear(self) -> None:
        """Refuse replies in the clear where secure aggregation is on.

        Raises:
            DisclosureError: secure aggregation is on.
        """
        if self.runtime.scenario.secure.aggregation:
            raise DisclosureError(
                "secure.aggregation is true: updates and statistics leave this client under masks only"
            )

    def evaluate(self, client: int, request: Any, state: State) -> tuple[RecordDict, State]:
        """Evaluate the server's weights on the validation rows."""
        replies = self.evaluation.validate(request, [client], batch_of(client, state))
        return _with_state(replies[0], state)

    def test(self, client: int, request: TestRequest, state: State) -> tuple[RecordDict, State]:
        """Evaluate the server's weights on the test rows, with bootstrap intervals."""
        return self.evaluation.test(client, request, batch_of(client, state)), state

    def train_local(self, client: int, request: AloneRequest) -> RecordDict:
        """Train without a federation; the reply holds test metrics only."""
        self.runtime.spend(Use("local"))
        trained, steps = train_alone(self.runtime, client, request)
        numbers = self.evaluation.tested(client, self.runtime.rows(client)["test"], trained)
        return RecordDict({METRICS_RECORD: metric_record({**numbers, STEPS: steps})})

    def train_pooled(self, client: int, request: AloneRequest) -> RecordDict:
        """Train on the pooled rows of all clients; the reply holds the weights (simulation only)."""
        trained, steps = train_alone(self.runtime, client, request)
        numbers = {EXAMPLES: len(self.runtime.rows(client)["train"].y), STEPS: steps}
        shared = self.runtime.weight_spec.take_shared(trained)
        return RecordDict({ARRAYS: weights_to_record(shared), METRICS_RECORD: metric_record(numbers)})
