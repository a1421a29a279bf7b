"""The Flower `ClientApp`: answers what the server asks, from rows that stay with the client.

`common/records.py` lists the message types and what each reply may carry; `check_reply` holds every
reply of this app to that list before it leaves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from shoal.clients.cohort import CohortReply, train_cohort, trial
from shoal.clients.preprocessing.statistics import local_statistics
from shoal.clients.preprocessing.sums import summand_of
from shoal.clients.runtime import ClientRuntime, Rows
from shoal.clients.secure import SecureClient
from shoal.clients.training.alone import train_alone
from shoal.common import metrics, records
from shoal.common.errors import DisclosureError
from shoal.common.preprocessing.statistics_records import pack
from shoal.common.records import ARRAYS, CLIENTS, CONFIG, EXAMPLES, METRICS_RECORD, SUMMAND
from shoal.common.schema import Split
from shoal.common.seeds import generator

# (client index, the server's config, the server's weights or None) → the reply's content
Handler = Callable[[int, ConfigRecord, ArrayRecord | None], RecordDict]
# (client index, the request's content, the client's state) → the reply's content
StatefulHandler = Callable[[int, RecordDict, RecordDict], RecordDict]


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
        self, message_type: str, content: RecordDict, clients: Sequence[int]
    ) -> list[CohortReply] | None:
        """Answer one message on behalf of several clients.

        Args:
            message_type: of the message; content: what each client was sent.
            clients: indices, ascending.

        Returns:
            Parts that together hold each client once; `None` where they have to be asked one by one.
        """
        sent, config = content.get(ARRAYS), content.config_records.get(CONFIG)
        if not isinstance(sent, ArrayRecord) or config is None:
            return None
        if message_type == records.TRAIN:
            self._client.refuse_in_clear()
            parts = train_cohort(self._client.runtime, config, sent, clients)
        elif message_type == records.EVALUATE:
            parts = self._client.evaluate_cohort(config, sent, clients)
        else:
            return None
        for part in parts:
            if part.content is not None:
                records.check_reply(message_type, part.content, sent)
        return parts


def make_client_app(runtime: ClientRuntime, *, pooled: bool = False) -> RuntimeClientApp:
    """Return the ClientApp that serves the clients of a process.

    Args:
        runtime: the data and the model of this process.
        pooled: also answer `train.pooled`, which returns a model trained alone; only a simulation
            may, where no real site stands behind the data.
    """
    client = _Client(runtime)
    app = RuntimeClientApp(client)
    app.query("statistics")(_handler(client.statistics))
    app.query("sums")(_handler(client.sums))
    app.query("trial")(_handler(client.trial))
    app.train()(_handler(client.train))
    app.train("local")(_handler(client.train_local))
    app.evaluate()(_handler(client.evaluate))
    app.evaluate("test")(_handler(client.test))
    serve_secure(app, SecureClient(runtime))
    if pooled:
        app.train("pooled")(_handler(client.train_pooled))
    return app


def serve_secure(app: ClientApp, client: SecureClient) -> None:
    """Let an app answer the stages of secure aggregation."""
    app.query("secure_keys")(_stateful(client.keys))
    app.query("secure_shares")(_stateful(client.shares))
    app.train("secure")(_stateful(client.train))
    app.query("secure_vector")(_stateful(client.vector))
    app.query("secure_unmask")(_stateful(client.unmask))


def _handler(answer: Handler) -> ClientAppCallable:
    """Wrap a handler that needs no state."""

    def unpacked(client: int, content: RecordDict, state: RecordDict) -> RecordDict:
        sent = content.get(ARRAYS)
        arrays = sent if isinstance(sent, ArrayRecord) else None
        return answer(client, content.config_records[CONFIG], arrays)

    return _stateful(unpacked)


def _stateful(answer: StatefulHandler) -> ClientAppCallable:
    """Wrap a handler: time it, and check what leaves."""

    def handle(message: Message, context: Context) -> Message:
        started = time.perf_counter()
        sent = message.content.get(ARRAYS)
        arrays = sent if isinstance(sent, ArrayRecord) else None
        reply = answer(int(context.node_config["partition-id"]), message.content, context.state)
        reply.metric_records[METRICS_RECORD]["seconds"] = time.perf_counter() - started
        records.check_reply(message.metadata.message_type, reply, arrays)
        return Message(reply, reply_to=message)

    return handle


def _reply(numbers: Mapping[str, float], weights: Sequence[records.Weights] | None = None) -> RecordDict:
    content = RecordDict({METRICS_RECORD: records.metric_record(numbers)})
    if weights is not None:
        content[ARRAYS] = records.weights_to_record(weights)
    return content


def _together(told: Mapping[int, Mapping[str, float]]) -> RecordDict:
    """Return one reply for several clients: the mean by examples of each metric, and what each told."""
    rows = list(told.values())
    numbers = {EXAMPLES: sum(row[EXAMPLES] for row in rows)}
    for name in rows[0]:
        if name != EXAMPLES:
            have = [row for row in rows if math.isfinite(row[name])]
            examples = sum(row[EXAMPLES] for row in have)
            numbers[name] = (
                sum(row[EXAMPLES] * row[name] for row in have) / examples if examples else math.nan
            )
    table = records.client_table(list(told), rows)
    return RecordDict({METRICS_RECORD: records.metric_record(numbers), CLIENTS: table})


class _Client:
    """The handlers; each serves whichever client of the process is asked."""

    def __init__(self, runtime: ClientRuntime) -> None:
        self.runtime = runtime
        self.task = runtime.schema.task
        self.scenario = runtime.scenario
        self.metric_names = self.scenario.training.metrics or metrics.default_metrics(self.task)

    def statistics(self, client: int, config: ConfigRecord, arrays: ArrayRecord | None) -> RecordDict:
        """Aggregates of the training rows, under the disclosure rule."""
        self.refuse_in_clear()
        splits = self.runtime.raw(client)
        statistics = local_statistics(splits["train"], self.runtime.schema, self.scenario.preprocessing)
        reply = pack(statistics)
        counts = {f"{name}-rows": shard.rows for name, shard in splits.items()}
        reply[METRICS_RECORD] = records.metric_record({EXAMPLES: counts["train-rows"], **counts})
        return reply

    def sums(self, client: int, config: ConfigRecord, arrays: ArrayRecord | None) -> RecordDict:
        """What this client adds to a sum of statistics; how many rows it has does not leave."""
        self.refuse_in_clear()
        vector = summand_of(self.runtime, client, config)
        reply = _reply({})
        reply[SUMMAND] = records.weights_to_record([vector])
        return reply

    def trial(self, client: int, config: ConfigRecord, arrays: ArrayRecord | None) -> RecordDict:
        """Measure both ways to train on this client's rows; seconds leave."""
        if arrays is None:
            raise ValueError("the server sent no weights")
        return trial(self.runtime, config, arrays, client)

    def train(self, client: int, config: ConfigRecord, arrays: ArrayRecord | None) -> RecordDict:
        """Train from the server's weights for one round; the new weights leave."""
        if arrays is None:
            raise ValueError("the server sent no weights")
        self.refuse_in_clear()
        part = train_cohort(self.runtime, config, arrays, [client])[0]
        if part.content is None:
            raise part.error or RuntimeError("local training gave nothing")
        return part.content

    def refuse_in_clear(self) -> None:
        """Refuse what would leave by itself where only sums may.

        Raises:
            DisclosureError: they may.
        """
        if self.scenario.secure.aggregation:
            raise DisclosureError(
                "secure.aggregation is true: updates and statistics leave this client under masks only"
            )

    def evaluate(self, client: int, config: ConfigRecord, arrays: ArrayRecord | None) -> RecordDict:
        """Measure the server's weights on the validation rows."""
        rows, weights = self._open(client, config, arrays)
        validation = rows["validation"]
        if not self._enough(validation):
            return _reply(self._too_few(validation))
        predicted, loss = self.runtime.trainer.evaluate(weights, validation.x, validation.y)
        return _reply(self._measured(validation, predicted, loss))

    def evaluate_cohort(
        self, config: ConfigRecord, arrays: ArrayRecord, clients: Sequence[int]
    ) -> list[CohortReply]:
        """Measure the server's weights on the validation rows of several clients."""
        self.runtime.use_preprocessing(str(config["preprocessing"]))
        started = time.perf_counter()
        found: dict[int, dict[str, float]] = {}
        asked: list[tuple[int, Rows]] = []
        failed = []
        for client in clients:
            try:
                rows = self.runtime.rows(client)["validation"]
            except Exception as error:
                failed.append(CohortReply([client], None, error))
                continue
            if self._enough(rows):
                asked.append((client, rows))
            else:
                found[client] = self._too_few(rows)
        if asked:
            weights = records.record_to_weights(arrays)
            results = self.runtime.trainer.evaluate_many(weights, [(rows.x, rows.y) for _, rows in asked])
            for (client, rows), (predicted, loss) in zip(asked, results, strict=True):
                found[client] = self._measured(rows, predicted, loss)
        seconds = (time.perf_counter() - started) / len(clients)
        told = {client: {**numbers, "seconds": seconds} for client, numbers in sorted(found.items())}
        if told and config.get("reduce"):
            return [CohortReply(list(told), _together(told)), *failed]
        alone = [CohortReply([client], _reply(numbers)) for client, numbers in told.items()]
        return sorted([*alone, *failed], key=lambda part: part.clients[0])

    def _measured(self, rows: Rows, predicted: records.Weights, loss: float) -> dict[str, float]:
        found = metrics.measure(self.task, rows.y, predicted, self.metric_names, loss)
        return {EXAMPLES: len(rows.y), **found}

    def _too_few(self, rows: Rows) -> dict[str, float]:
        return {EXAMPLES: len(rows.y), **dict.fromkeys(self.metric_names, math.nan)}

    def test(self, client: int, config: ConfigRecord, arrays: ArrayRecord | None) -> RecordDict:
        """Measure the server's weights on the test rows, with bootstrap intervals."""
        rows, weights = self._open(client, config, arrays)
        return _reply(self._tested(client, rows["test"], weights))

    def train_local(self, client: int, config: ConfigRecord, arrays: ArrayRecord | None) -> RecordDict:
        """Train as if there were no federation; only test metrics leave."""
        rows, weights = self._open(client, config, arrays)
        trained, steps = train_alone(self.runtime, client, rows, weights, config)
        numbers = self._tested(client, rows["test"], trained) | {"steps": steps}
        return _reply(numbers)

    def train_pooled(self, client: int, config: ConfigRecord, arrays: ArrayRecord | None) -> RecordDict:
        """Train on the pooled rows of all clients; the model leaves (simulation only)."""
        rows, weights = self._open(client, config, arrays)
        trained, steps = train_alone(self.runtime, client, rows, weights, config)
        numbers = {EXAMPLES: len(rows["train"].y), "steps": steps}
        return _reply(numbers, trained)

    def _open(
        self, client: int, config: ConfigRecord, arrays: ArrayRecord | None
    ) -> tuple[Mapping[Split, Rows], list[records.Weights]]:
        if arrays is None:
            raise ValueError("the server sent no weights")
        self.runtime.use_preprocessing(str(config["preprocessing"]))
        return self.runtime.rows(client), records.record_to_weights(arrays)

    def _enough(self, rows: Rows) -> bool:
        """Tell whether a metric of these rows may leave: one of a few rows tells of single rows."""
        return len(rows.y) >= self.scenario.preprocessing.min_count

    def _tested(self, client: int, rows: Rows, weights: list[records.Weights]) -> dict[str, float]:
        numbers: dict[str, float] = {EXAMPLES: len(rows.y), "positives": self._positives(rows)}
        if not self._enough(rows):
            return numbers
        predicted, loss = self.runtime.trainer.evaluate(weights, rows.x, rows.y)
        names = [name for name in self.metric_names if name != "loss"]
        rng = generator(self.scenario.seed, "bootstrap", client=client)
        found = metrics.bootstrap(self.task, rows.y, predicted, names, rng, self.scenario.output.bootstrap)
        for name, interval in found.items():
            numbers |= {name: interval.value, f"{name}-low": interval.low, f"{name}-high": interval.high}
        return numbers | {"loss": loss}

    def _positives(self, rows: Rows) -> int:
        """Count rows of the positive class; -1 where the count, or its complement, is too small."""
        if self.task != "binary":
            return -1
        positives = int(rows.y.sum())
        few = self.scenario.preprocessing.min_count
        return positives if min(positives, len(rows.y) - positives) >= few else -1
