"""What the server makes of replies: order, refusals, and when a round is not applied."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from shoal.clients.worker import WorkerContext
from shoal.common.errors import NonFiniteError, TooFewRepliesError
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.sites import Sites
from shoal.common.update.codecs import FullPrecision
from shoal.common.weights import weights_to_record
from shoal.server.exchange import Exchange, ask, require_replies
from shoal.server.update_sum import UpdateReader
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.serial import SerialExecutor

CLIENTS = 5
SITES = Sites(CLIENTS, "site {}".format)


def make_app() -> ClientApp:
    """Partition 1 answers NaN, 2 another shape, 3 raises, 4 raises NonFiniteError if told to."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = context.node_config["partition-id"]
        update = np.full(3, float(partition), np.float32)
        mode = message.content["config"]["mode"]
        if mode == "all diverge":
            raise NonFiniteError("the loss is nan")
        if mode == "bad":
            if partition == 1:
                update[1] = np.nan
            if partition == 2:
                update = np.zeros(4, np.float32)  # which the server's reader of updates refuses
            if partition == 3:
                raise ValueError("broken")
        content = {
            "arrays": ArrayRecord([update]),
            "metrics": MetricRecord({"num-examples": 10, "seconds": 2.0}),
        }
        return Message(RecordDict(content), reply_to=message)

    return app


def exchange(mode: str) -> Exchange:
    identify_process(1)
    executor = SerialExecutor(make_app, WorkerContext(1, {}, CLIENTS, show_errors=True))
    grid = EngineGrid(executor, SITES, make_run(1))
    content = RecordDict(
        {"arrays": ArrayRecord([np.zeros(3, np.float32)]), "config": ConfigRecord({"mode": mode})}
    )
    messages = [Message(content, SITES.node(c), "train") for c in (4, 2, 0, 1, 3)]
    start = weights_to_record([np.zeros(3, np.float32)])
    return ask(
        grid,
        SITES,
        messages,
        "train",
        round_number=6,
        timeout_s=60,
        usable=lambda content: UpdateReader(FullPrecision(), SITES).check(content, start),
    )


def test_rows_tell_each_message() -> None:
    found = exchange("good")
    assert [row.client for row in found.rows] == [0, 1, 2, 3, 4]
    assert [r.metadata.src_node_id for r in found.replies] == list(SITES.node_ids)
    row = found.rows[3]
    assert (row.name, row.round, row.phase, row.examples, row.seconds) == ("site 3", 6, "train", 10, 2.0)
    assert row.bytes_up == found.replies[3].content["arrays"].count_bytes() + (12 + 8) + (7 + 8)
    assert found.bytes_down == 5 * row.bytes_down > 0


def test_unusable_updates_are_refused_by_name_and_never_averaged(capsys: pytest.CaptureFixture[str]) -> None:
    found = exchange("bad")
    errors = {row.name: row.error for row in found.rows if row.error}
    assert list(errors) == ["site 1", "site 2", "site 3"]
    assert "NaN or infinity" in errors["site 1"]
    assert "not an update of the model" in errors["site 2"]
    assert "ValueError" in errors["site 3"]
    assert [r.metadata.src_node_id for r in found.accepted] == [SITES.node(0), SITES.node(4)]
    capsys.readouterr()  # the serial executor shows the traceback


def test_too_few_replies_say_how_many_were_wanted_and_why() -> None:
    found = exchange("bad")
    require_replies(found, 0.4, "round 6")  # two of five are enough
    with pytest.raises(TooFewRepliesError, match=r"2 of 5 .* requires 3") as caught:
        require_replies(found, 0.5, "round 6")
    assert "site 3: ValueError" in str(caught.value)


def test_divergence_of_all_clients_is_named_as_such() -> None:
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        require_replies(exchange("all diverge"), 0.5, "round 1")
