"""What the server gets to see in a session of secure aggregation, and what it cannot compute from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from scipy.stats import chi2, norm

from shoal.clients.app import make_client_app
from shoal.clients.runtime import ClientRuntime
from shoal.clients.secure.training import summand
from shoal.clients.worker import WorkerContext
from shoal.common.flower_shim import identify_process, make_run
from shoal.common.messages import table
from shoal.common.messages.names import MASKED, SECURE_SESSION
from shoal.common.messages.requests import SecureTrainRequest
from shoal.common.messages.schema import parse, to_content
from shoal.common.schema import Population
from shoal.common.secure import layout
from shoal.common.secure.agreement import KeyPair, mask_key
from shoal.common.secure.digest import digest
from shoal.common.secure.field import combine, int_to_secret, share_from_bytes
from shoal.common.secure.fixed_point import FixedPoint, from_ring
from shoal.common.secure.masks import Mask, add_masks
from shoal.common.sites import Sites
from shoal.server.secure.training import train_securely
from shoal.simulations import datasets
from shoal.simulations.engine.grid import EngineGrid
from shoal.simulations.engine.serial import SerialExecutor
from tests.helpers.secure_sessions import (
    CLIENTS,
    LosingGrid,
    scenario_of,
    sum_rows,
    train_request,
)


@pytest.fixture(scope="module")
def population() -> Population:
    return datasets.load_population(scenario_of())


LOST = 7  # gives shares, but its input does not arrive
COLLUDING = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class View:
    """All that the server has after a session, and what only the test knows.

    Attributes:
        replies: kind → client → content, of all that arrived; requests: the same of what was sent.
        secrets: client → its state before the last stage; updates: client → what it masked, in levels.
    """

    replies: Mapping[str, Mapping[int, RecordDict]]
    requests: Mapping[str, Mapping[int, RecordDict]]
    secrets: Mapping[int, ConfigRecord]
    updates: Mapping[int, np.ndarray]

    def masked(self, client: int) -> np.ndarray:
        array = self.replies[table.SECURE_TRAIN.name][client].array_records[MASKED]["0"]
        return array.numpy()

    @property
    def survivors(self) -> list[int]:
        return sorted(self.replies[table.SECURE_TRAIN.name])


@pytest.fixture(scope="module")
def view(population: Population) -> View:
    identify_process(1)
    scenario = scenario_of("secure.aggregation=true")
    sites, runtime = Sites(CLIENTS, population.name), ClientRuntime(scenario, population)
    app = make_client_app(runtime)
    states: dict[int, RecordDict] = {}
    executor = SerialExecutor(lambda: app, WorkerContext(1, {}, CLIENTS, show_errors=True))
    kept: dict[int, ConfigRecord] = {}

    class Spying(LosingGrid):
        def send_and_receive(
            self, messages: Iterable[Message], *, timeout: float | None = None
        ) -> Iterable[Message]:
            asked = list(messages)
            if asked[0].metadata.message_type == table.SECURE_UNMASK.name:
                kept.update({n - 2: s[SECURE_SESSION] for n, s in states.items()})
            return super().send_and_receive(asked, timeout=timeout)

    grid = Spying(EngineGrid(executor, sites, make_run(1), contexts=states), sites.node_ids)
    grid.lost, grid.seen = {table.SECURE_TRAIN.name: [LOST]}, []
    request = train_request(runtime, scenario)
    found = train_securely(grid, sites, scenario, range(CLIENTS), 1, to_content(request))
    assert found.survivors == [c for c in range(CLIENTS) if c != LOST]
    fixed = FixedPoint.for_sum(CLIENTS, scenario.secure.range)
    (masked,) = {  # one request for all
        id(request.content): request.content
        for request, _ in grid.seen
        if request.metadata.message_type == table.SECURE_TRAIN.name
    }.values()
    asked = parse(SecureTrainRequest, masked)
    updates = {c: layout.encode(summand(runtime, asked, c, fixed), fixed) for c in range(CLIENTS)}
    replies: dict[str, dict[int, RecordDict]] = {}
    requests: dict[str, dict[int, RecordDict]] = {}
    for request, reply in grid.seen:
        kind, client = request.metadata.message_type, reply.metadata.src_node_id - 2
        replies.setdefault(kind, {})[client] = reply.content
        requests.setdefault(kind, {})[client] = request.content
    return View(replies, requests, kept, updates)


def looks_random(vector: np.ndarray, true: np.ndarray) -> bool:
    """Tell whether numbers are uniform byte by byte, and uncorrelated with a true update.

    Each test passes all but 10^-8 of truly uniform vectors: χ² of 255 degrees of freedom, and a correlation
    times √d, which is standard normal.
    """
    bytes_ = vector.view(np.uint8).reshape(-1, 4)
    expected = len(vector) / 256
    for column in bytes_.T:
        counts = np.bincount(column, minlength=256)
        if ((counts - expected) ** 2 / expected).sum() > chi2.isf(1e-8, 255):
            return False
    correlation = np.corrcoef(from_ring(vector), true)[0, 1]
    return bool(abs(correlation) * np.sqrt(len(vector)) < norm.isf(5e-9))


def test_the_server_receives_five_kinds_of_messages_and_no_number_of_a_client(view: View) -> None:
    """Every reply of the session, record by record: seconds, keys, sealed shares, a masked vector, shares."""
    stages = [
        kind.name
        for kind in (table.SECURE_KEYS, table.SECURE_SHARES, table.SECURE_TRAIN, table.SECURE_UNMASK)
    ]
    assert list(view.replies) == stages
    names = dict(zip(stages, ("keys", "shares", "masked", "unmask"), strict=True))
    for kind, by_client in view.replies.items():
        for content in by_client.values():
            assert set(content) == {"metrics", names[kind]}
            assert set(content.metric_records["metrics"]) == {"seconds"}
    sealed = b"".join(
        s
        for c in view.replies[table.SECURE_SHARES.name].values()
        for s in c.config_records["shares"]["sealed"]
    )
    counts = np.bincount(np.frombuffer(sealed, np.uint8), minlength=256)  # as random as any cipher text
    assert ((counts - len(sealed) / 256) ** 2 / (len(sealed) / 256)).sum() < chi2.isf(1e-8, 255)
    for secrets in view.secrets.values():  # nor is any secret of a client in what it has sent, in clear
        assert not [k for k in ("mask_key", "seed") if secrets[k] in sealed]
        assert secrets["share_key"] == b""  # it has done its work


def test_of_no_client_both_secrets_are_told(view: View) -> None:
    whose: dict[str, set[int]] = {"seeds": set(), "keys": set()}
    for content in view.replies[table.SECURE_UNMASK.name].values():
        for name, found in whose.items():
            found |= set(content.config_records["unmask"][f"{name}-of"])
    assert whose == {"seeds": set(view.survivors), "keys": {LOST}}


def test_each_masked_input_is_uniform_and_tells_nothing_of_the_update(view: View) -> None:
    for client in view.survivors:
        assert looks_random(view.masked(client), view.updates[client])
    # the same eyes see an update that is not masked, and the sum of all once the masks are off
    assert not looks_random(view.updates[3].astype(np.uint32), view.updates[3])


def partly_unmasked(view: View, clients: Sequence[int], knows: Sequence[int] = ()) -> np.ndarray:
    """Return the sum of some inputs less every mask that the server can compute.

    Args:
        clients: whose inputs; knows: clients who work with the server and gave it all their secrets.
    """
    total = np.sum([view.masked(c) for c in clients], axis=0, dtype=np.uint32)
    keys = {c: r.config_records["keys"] for c, r in view.replies[table.SECURE_KEYS.name].items()}
    request = view.requests[table.SECURE_TRAIN.name][clients[0]]
    session, asked = request.config_records["secure"]["session"], digest(request)
    masks = [Mask(told(view, "seeds", c), subtract=True) for c in clients]
    for other in {LOST, *knows}:
        own = KeyPair.of(told(view, "keys", LOST) if other == LOST else view.secrets[other]["mask_key"])
        for c in clients:
            if c != other:
                key = mask_key(own, keys[c]["mask"], session, asked)
                masks.append(Mask(key, subtract=c < other))
    add_masks(total, masks)
    return total


def told(view: View, name: str, owner: int) -> bytes:
    """Put together what shares the server was told of a secret, as any server could."""
    shares = {}
    for holder, content in view.replies[table.SECURE_UNMASK.name].items():
        record = content.config_records["unmask"]
        for whose, share in zip(record[f"{name}-of"], record[name], strict=True):
            if whose == owner:
                shares[holder + 1] = share_from_bytes(share)
    secret = int_to_secret(combine(shares))
    assert secret is not None
    return secret


def test_less_than_all_survivors_cannot_be_decoded_with_all_that_the_server_knows(view: View) -> None:
    """Own masks and those with the lost client are off; the masks between survivors still hide any part."""
    everybody = view.survivors
    parts = [[c] for c in everybody] + [[v for v in everybody if v != c] for c in everybody]
    for part in [*parts, everybody[:2], everybody[:4]]:
        true = np.sum([view.updates[c] for c in part], axis=0)
        assert looks_random(partly_unmasked(view, part), true), part
    whole = from_ring(partly_unmasked(view, everybody))
    np.testing.assert_array_equal(whole, np.sum([view.updates[c] for c in everybody], axis=0))


def test_clients_that_work_with_the_server_do_not_uncover_another(view: View) -> None:
    """Three of ten give it all their secrets: of the six others it still learns the sum alone."""
    honest = [c for c in view.survivors if c not in COLLUDING]
    for client in honest:
        assert looks_random(partly_unmasked(view, [client], COLLUDING), view.updates[client])
        rest = [c for c in honest if c != client]
        true = np.sum([view.updates[c] for c in rest], axis=0)
        assert looks_random(partly_unmasked(view, rest, COLLUDING), true)
    alone = from_ring(partly_unmasked(view, honest, COLLUDING))
    np.testing.assert_array_equal(alone, np.sum([view.updates[c] for c in honest], axis=0))


def test_a_server_that_asks_one_client_something_else_gets_noise(population: Population) -> None:
    """Others could be asked for nothing, so that the sum is one client's: but then masks do not cancel."""

    class TwoFaced(LosingGrid):
        def send_and_receive(
            self, messages: Iterable[Message], *, timeout: float | None = None
        ) -> Iterable[Message]:
            asked = list(messages)
            if asked[0].metadata.message_type == table.SECURE_VECTOR.name:
                members = [*asked[0].content.config_records["secure"]["members"], 99]
                secure = ConfigRecord({**asked[0].content.config_records["secure"], "members": members})
                other = RecordDict({**asked[0].content, "secure": secure})
                asked[3] = Message(other, asked[3].metadata.dst_node_id, table.SECURE_VECTOR.name)
            return super().send_and_receive(asked, timeout=timeout)

    total, _ = sum_rows(population, {}, kind=TwoFaced)
    # Each of three numbers is uniform modulo 2^32: all are below 2^16 by chance once in 10^14.
    assert np.abs(total).max() > 2**16
