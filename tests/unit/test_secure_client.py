"""What a client refuses in a session of secure aggregation: whatever could tell more than the sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shoal.clients.app import make_client_app
from shoal.clients.runtime import ClientRuntime
from shoal.clients.secure import SecureClient
from shoal.clients.secure.session import without_session
from shoal.clients.secure.training import clip
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import DisclosureError
from shoal.common.messages import table
from shoal.common.messages.names import CONFIG, KEYS, MASKED, SECURE, SECURE_SESSION, SHARES, UNMASK
from shoal.common.messages.requests import TrainRequest
from shoal.common.messages.schema import parse, to_content
from shoal.common.messages.table import message_type
from shoal.common.secure import graph
from shoal.common.secure.fixed_point import FixedPoint
from shoal.simulations import datasets
from tests.helpers.secure_sessions import count_rows

CLIENTS = 4  # all neighbours of each other, by default one may be lost: shares of three give a secret back
SESSION = b"a session of 16 "
STAGES = {
    "keys": table.SECURE_KEYS,
    "shares": table.SECURE_SHARES,
    "unmask": table.SECURE_UNMASK,
}


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario("digits", ["secure.aggregation=true"])


@pytest.fixture(scope="module")
def runtime(scenario: Scenario) -> ClientRuntime:
    return ClientRuntime(scenario, datasets.load_population(scenario))


class Cohort:
    """Four clients, and a server that passes on what it is told to."""

    def __init__(self, runtime: ClientRuntime) -> None:
        self.app = SecureClient(runtime, vector=count_rows)
        self.states = [RecordDict() for _ in range(CLIENTS)]
        self.public: list[ConfigRecord] = []
        self.sealed: dict[int, dict[int, bytes]] = {}

    def ask(self, stage: str, client: int, **asked: Any) -> RecordDict:
        content = RecordDict({SECURE: ConfigRecord({"session": SESSION, **asked})})
        request = parse(STAGES[stage].request, content)
        reply, self.states[client] = getattr(self.app, stage)(client, request, self.states[client])
        return reply  # type: ignore[no-any-return]

    def keys(self) -> None:
        self.public = [self.ask("keys", c).config_records[KEYS] for c in range(CLIENTS)]

    def cohort(self, client: int, **changed: Any) -> dict[str, Any]:
        others = [v for v in range(CLIENTS) if v != client]
        return {
            "clients": CLIENTS,
            "threshold": 3,
            "neighbours": others,
            "mask-keys": [self.public[v]["mask"] for v in others],
            "share-keys": [self.public[v]["share"] for v in others],
        } | changed

    def shares(self) -> None:
        for client in range(CLIENTS):
            found = self.ask("shares", client, **self.cohort(client)).config_records[SHARES]
            self.sealed[client] = dict(zip(found["for"], found["sealed"], strict=True))  # type: ignore[arg-type]

    def vector(self, client: int, **changed: Any) -> np.ndarray:
        asked = {"session": SESSION, "members": [*range(CLIENTS)], "round": 0} | changed
        content = RecordDict(
            {SECURE: ConfigRecord(asked), CONFIG: ConfigRecord({"pass": "numbers"})}  # type: ignore[arg-type]
        )
        request = parse(table.SECURE_VECTOR.request, content)
        reply, self.states[client] = self.app.vector(client, request, self.states[client])
        return reply.array_records[MASKED]["0"].numpy()

    def unmask(self, client: int, survivors: list[int], dropped: list[int], **changed: Any) -> ConfigRecord:
        others = [v for v in range(CLIENTS) if v != client]
        asked = {
            "survivors": survivors,
            "dropped": dropped,
            "senders": others,
            "sealed": [self.sealed[v][client] for v in others],
        }
        return self.ask("unmask", client, **(asked | changed)).config_records[UNMASK]


@pytest.fixture
def cohort(runtime: ClientRuntime) -> Iterator[Cohort]:
    found = Cohort(runtime)
    found.keys()
    return found  # type: ignore[return-value]


def test_a_session_from_begin_to_end_leaves_no_secret_behind(cohort: Cohort, runtime: ClientRuntime) -> None:
    cohort.shares()
    cohort.vector(0)
    told = cohort.unmask(0, [0, 1, 2], [3])
    assert (told["seeds-of"], told["keys-of"]) == ([0, 1, 2], [3])
    assert not cohort.states[0]
    assert SECURE_SESSION in cohort.states[1]
    assert SECURE_SESSION not in without_session(cohort.states[1])


def test_each_stage_is_answered_once_and_in_order(cohort: Cohort) -> None:
    with pytest.raises(DisclosureError, match='after "keys" is due'):
        cohort.vector(0)
    cohort.shares()
    with pytest.raises(DisclosureError, match='after "shares" is due'):
        cohort.ask("shares", 0, **cohort.cohort(0))
    with pytest.raises(DisclosureError, match="is due"):
        cohort.unmask(0, [0, 1, 2, 3], [])
    cohort.vector(0)
    with pytest.raises(DisclosureError, match='after "input" is due'):
        cohort.vector(0)
    cohort.unmask(0, [0, 1, 2, 3], [])
    with pytest.raises(DisclosureError, match="not open"):  # another one, for the other secrets
        cohort.unmask(0, [0, 1, 2], [3])


def test_a_message_of_another_session_is_refused(cohort: Cohort) -> None:
    cohort.shares()
    with pytest.raises(DisclosureError, match="not open"):
        cohort.vector(0, session=b"another session ")


@pytest.mark.parametrize(
    ("survivors", "dropped", "says"),
    [
        ([0, 1, 2, 3], [3], "both secrets"),
        ([1, 2, 3], [0], "survivors are not the clients"),  # it has given its input itself
        ([0, 1, 2], [], "survivors are not the clients"),  # neither: as if 3 had never been there
        ([0, 1, 2, 3, 9], [], "survivors are not the clients"),
        ([0, 1], [2, 3], "2 survivors; the threshold is 3"),
    ],
)
def test_survivors_that_would_tell_more_are_refused_and_nothing_is_given(
    cohort: Cohort, survivors: list[int], dropped: list[int], says: str
) -> None:
    cohort.shares()
    cohort.vector(0)
    before = RecordDict(cohort.states[0])
    with pytest.raises(DisclosureError, match=says):
        cohort.unmask(0, survivors, dropped)
    assert cohort.states[0] == before
    assert cohort.unmask(0, [0, 1, 2, 3], [])["keys-of"] == []


def test_shares_that_were_changed_or_sealed_for_another_are_left_out(cohort: Cohort) -> None:
    cohort.shares()
    cohort.vector(0)
    sealed = [cohort.sealed[1][0], cohort.sealed[2][3], bytes(40)]  # of 2 for 3, and of nobody
    assert cohort.unmask(0, [0, 1, 2, 3], [], sealed=sealed)["seeds-of"] == [0, 1]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"threshold": 2}, "threshold of 2 among 4 clients; .* requires 3 and 3"),
        ({"clients": 8}, "requires 7 and 6"),
        ({"clients": 100}, "a session of 100 clients, in a federation of 10"),
        ({"neighbours": [1, 1, 2]}, "threshold of 3"),
        ({"neighbours": [0, 1, 2]}, "threshold of 3"),  # itself
        ({"mask-keys": "twice"}, "same public key"),
        ({"share-keys": "own"}, "same public key"),
    ],
)
def test_cohorts_that_hide_less_than_the_scenario_says_are_refused(
    cohort: Cohort, changed: dict[str, Any], says: str
) -> None:
    asked = cohort.cohort(0)
    if changed == {"mask-keys": "twice"}:
        changed = {"mask-keys": [asked["mask-keys"][0]] * 3}
    if changed == {"share-keys": "own"}:
        changed = {"share-keys": [cohort.public[0]["share"], *asked["share-keys"][1:]]}
    with pytest.raises(DisclosureError, match=says):
        cohort.ask("shares", 0, **(asked | changed))


def test_an_input_among_fewer_than_the_threshold_is_refused(cohort: Cohort) -> None:
    cohort.shares()
    with pytest.raises(DisclosureError, match="1 of 3 neighbours"):
        cohort.vector(0, members=[0, 1])
    with pytest.raises(DisclosureError, match="fewer than the threshold"):
        cohort.vector(0, members=[1, 2, 3])  # without itself


def test_nothing_is_masked_where_it_is_not_wanted_and_nothing_leaves_in_clear_where_it_is(
    runtime: ClientRuntime,
) -> None:
    off = load_scenario("digits", [])
    with pytest.raises(DisclosureError, match=r"secure\.aggregation is false"):
        Cohort(ClientRuntime(off, runtime.population)).keys()
    request = TrainRequest(
        weights=ArrayRecord([np.zeros(1)]),
        preprocessing="",
        round_number=1,
        learning_rate=0.1,
        execution_mode="sequential",
        reduce=True,
    )
    with pytest.raises(DisclosureError, match="under masks only"):
        make_client_app(runtime).many(table.TRAIN.name, to_content(request), [0], None)


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        (table.SECURE_TRAIN.name, {"metrics": MetricRecord({"train_loss": 1.0})}),
        (table.SECURE_TRAIN.name, {"metrics": MetricRecord({"num-examples": 1})}),
        (table.SECURE_TRAIN.name, {"arrays": ArrayRecord([np.zeros(3, np.float32)])}),
        (table.SECURE_TRAIN.name, {MASKED: ArrayRecord([np.zeros(3, np.float32)])}),
        (table.SECURE_TRAIN.name, {MASKED: ArrayRecord([np.zeros(3, np.uint32), np.zeros(3, np.uint32)])}),
        (table.SECURE_TRAIN.name, {MASKED: ConfigRecord({"0": [1.0]})}),
        (table.SECURE_TRAIN.name, {KEYS: ConfigRecord({"mask": b"", "share": b""})}),
        (table.SECURE_KEYS.name, {KEYS: ConfigRecord({"mask": b"", "share": b"", "private": b""})}),
        (table.SECURE_UNMASK.name, {UNMASK: ConfigRecord({"seeds": [b""]})}),
        (table.TRAIN.name, {MASKED: ArrayRecord([np.zeros(3, np.uint32)])}),
    ],
)
def test_the_gate_lets_nothing_else_through(kind: str, extra: dict[str, Any]) -> None:
    with pytest.raises(DisclosureError):
        message_type(kind).reply.check(kind, RecordDict(extra))


def test_the_gate_lets_each_stage_through() -> None:
    fine = {
        table.SECURE_KEYS.name: {KEYS: ConfigRecord({"mask": b"", "share": b""})},
        table.SECURE_SHARES.name: {SHARES: ConfigRecord({"for": [1], "sealed": [b""]})},
        table.SECURE_TRAIN.name: {MASKED: ArrayRecord([np.zeros(3, np.uint32)])},
        table.SECURE_VECTOR.name: {MASKED: ArrayRecord([np.zeros(3, np.uint32)])},
        table.SECURE_UNMASK.name: {
            UNMASK: ConfigRecord({"seeds-of": [1], "seeds": [b""], "keys-of": [2], "keys": [b""]})
        },
    }
    assert set(fine) == {one.name for one in table.MESSAGES.values() if "secure" in one.name}
    for kind, content in fine.items():
        reply = RecordDict({"metrics": MetricRecord({"seconds": 1.0}), **content})
        message_type(kind).reply.check(kind, reply)


def test_a_clipped_update_has_at_most_the_clip_norm_also_as_whole_numbers() -> None:
    """d = 10,000 equal numbers, of which each is just above half a level: rounding would double the norm."""
    fixed = FixedPoint(1.0, 2**12)
    update = [np.full((100, 100), 0.0101)]  # of norm 1.01
    clip(update, fixed)
    assert np.linalg.norm(fixed.encode(update[0]).astype(float)) <= fixed.levels
    small = [np.full(4, 0.1)]
    clip(small, fixed)
    np.testing.assert_array_equal(small[0], np.full(4, 0.1))  # norm 0.2 is left as it is
    with pytest.raises(DisclosureError, match="too few levels"):
        clip([np.zeros(10_000)], FixedPoint(1.0, 32))  # √d / 2 = 50 levels of 32


def test_the_threshold_of_these_tests_is_the_scenario_s(scenario: Scenario) -> None:
    found = graph.choose(CLIENTS, scenario.secure.max_dropout, scenario.secure.max_colluding)
    assert (found.threshold, found.least) == (3, 3)
