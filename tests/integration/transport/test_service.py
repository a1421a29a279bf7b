"""Revocation while the server runs, health, metrics, a site's terms, and compression."""

from __future__ import annotations

import logging
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import RecordDict
from grpc_health.v1 import health_pb2, health_pb2_grpc
from waiting import until
from wire import NAMES, Doubles, Running, asked, dial, listening, of

from benchmarks.compose import free_port
from shoal.clients.pilot.consent import KINDS, Terms, statement
from shoal.clients.pilot.grpc_client import TransportClient
from shoal.common.certificates import Revocations, issue, make_authority, revoke
from shoal.common.config.file import load_scenario
from shoal.common.errors import DisclosureError, TransportError
from shoal.common.messages import table
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.common.wire.codec import Unpacking, pack
from shoal.common.wire.protocol import SERVICE
from shoal.server.pilot.grpc_server import Policy, TransportServer
from shoal.server.pilot.meter import serve_metrics
from shoal.simulations import datasets


@pytest.fixture
def own_keys(tmp_path: Path) -> Path:
    """Keys of an authority of this test's own: its list changes."""
    make_authority(tmp_path)
    issue(tmp_path, "server", hosts=["127.0.0.1"])
    for name in NAMES:
        issue(tmp_path, name)
    return tmp_path


def test_a_certificate_revoked_while_it_is_in_use_is_put_out(
    own_keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy(NAMES, Revocations(own_keys / "ca.crt", own_keys / "ca.crl"), patience_s=0.5)
    with caplog.at_level(logging.INFO, "shoal.transport"):
        for server in listening(own_keys, policy):
            south, north = (Running(server, own_keys, name, Doubles()) for name in ("south", "north"))
            server.wait_for(2, 20)
            revoke(own_keys, "south")
            south.join(20)
            assert 'the certificate of "south" is revoked' in str(south.error)
            assert 'the certificate of "south" is revoked' in dial(server, of(own_keys, "south"))
            until(lambda: server.connected() == [0])  # noqa: B023
            good, gone = server.exchange([asked(0), asked(1)], 20)
            assert good is not None
            assert good.content is not None
            assert gone is not None
            assert "not connected" in gone.error
        north.join(20)
    assert "1 certificates are revoked" in caplog.text
    assert 'refused "south" at ipv4:127.0.0.1' in caplog.text


def test_a_list_that_the_authority_has_not_signed_changes_nothing(
    own_keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    revoke(own_keys, "west")
    found = Revocations(own_keys / "ca.crt", own_keys / "ca.crl")
    assert len(found.serials()) == 1
    other = tmp_path / "other"
    make_authority(other)
    good = (own_keys / "ca.crl").read_bytes()
    for bad in ((other / "ca.crl").read_bytes(), good[: len(good) // 2], b""):
        (own_keys / "ca.crl").write_bytes(bad)
        assert len(found.serials()) == 1
        with pytest.raises(TransportError, match=r"not signed by the authority|not a revocation list"):
            Revocations(own_keys / "ca.crt", own_keys / "ca.crl")
    assert caplog.text.count("the previous list stays in force") == 3


def test_the_server_answers_health_checks(server: TransportServer, keys: Path) -> None:
    with grpc.secure_channel(f"127.0.0.1:{server.port}", of(keys, "north")) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            found = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert found.status == health_pb2.HealthCheckResponse.SERVING


def test_prometheus_gets_what_went_over_the_wire(server: TransportServer, keys: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    serve_metrics(server.meter, address)
    north = Running(server, keys, "north", Doubles())
    task = asked(0)
    server.exchange([task], 20)
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = dict(
            line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#")
        )
    assert float(lines["shoal_clients_connected"]) == 1
    assert float(lines["shoal_tasks_open"]) == 0
    assert float(lines['shoal_client_tasks_total{client="north"}']) == 1
    assert float(lines['shoal_client_replies_total{client="north"}']) == 1
    assert float(lines['shoal_client_bytes_down_total{client="north"}']) == task.packed.header.size
    assert float(lines['shoal_client_bytes_up_total{client="north"}']) == north.left[0].bytes
    assert float(lines['shoal_client_replies_total{client="south"}']) == 0
    with pytest.raises(TransportError, match="cannot expose metrics at"):
        serve_metrics(server.meter, address)


# -- a site's terms -----------------------------------------------------------------------------


def test_what_a_site_refuses_is_not_run_and_leaves_only_its_reason(
    server: TransportServer, keys: Path
) -> None:
    worker = Doubles()
    terms = Terms(frozenset({"train"}))
    north = Running(server, keys, "north", worker, refuses=terms.refuses)
    (answer,) = server.exchange([asked(0)], 20)
    assert answer is not None
    assert answer.content is None
    assert answer.error == "DisclosureError: this site refuses train messages"
    assert worker.asked == 0
    assert [(left.bytes, left.error) for left in north.left] == [(len(answer.error), answer.error)]


def test_terms() -> None:
    answered = {name for name in table.MESSAGES if not Terms().refuses(name)}
    assert answered == {*(kind.name for kind in KINDS.values()), table.SUMS.name}
    assert "refuses statistics messages" in Terms(frozenset({"statistics"})).refuses(table.SUMS.name)
    assert "does not know the message type" in Terms().refuses("train.pooled")  # of simulations only
    assert "does not know the message type" in Terms().refuses("query.shell")
    Terms(least_clients=3).check(3)
    with pytest.raises(DisclosureError, match="lists 2 clients, but this site requires at least 3"):
        Terms(least_clients=3).check(2)


def test_the_statement_names_all_that_may_leave_and_no_value_of_a_row() -> None:
    scenario = load_scenario("medical-thyroid", [])
    population = datasets.load_population(scenario)
    text = statement(scenario, population.schema, "fl:9443", 3, 1234, Terms(frozenset({"local"}), 3))
    words = text.replace(",", " ").replace(";", " ").split()
    for name, kind in KINDS.items():
        assert (name in words) == (name != "local" and not name.startswith("secure")), name
        if name in words:
            assert kind.reply.metrics <= set(words), name
    assert f"up to {scenario.training.rounds} rounds" in text
    assert "1,234 at this site" in text
    assert "refuses: local" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_statement_of_a_secure_scenario_says_that_updates_leave_under_masks_only() -> None:
    scenario = load_scenario("medical-thyroid", ["secure.aggregation=true"])
    population = datasets.load_population(scenario)
    text = statement(scenario, population.schema, "fl:9443", 3, 1234, Terms())
    left = [name for name in KINDS if f"  {name} " in text]
    assert left == [name for name in KINDS if name not in ("train", "statistics")]
    assert "the masked update" in text


# -- compression --------------------------------------------------------------------------------


def test_a_compressed_payload_is_the_same_content_in_fewer_bytes() -> None:
    """One weight in twenty is not zero: its 32 bits and about 5 for where it is, of 640."""
    draw = np.random.default_rng(1)
    weights = np.where(draw.random(200_000) < 0.05, draw.normal(size=200_000), 0).astype(np.float32)
    content = RecordDict({"arrays": weights_to_record([weights])})
    plain, packed = pack(content), pack(content, "zstd")
    assert packed.header.size < 0.15 * plain.header.size
    unpacking = Unpacking(packed.header, 1 << 30)
    for chunk in packed.chunks():
        unpacking.add(chunk)
    (found,) = record_to_weights(unpacking.content().array_records["arrays"])
    np.testing.assert_array_equal(found, weights)


def test_a_bomb_is_refused_by_what_it_announces_and_by_what_it_holds() -> None:
    content = RecordDict({"arrays": weights_to_record([np.zeros(1 << 22, np.float32)])})
    packed = pack(content, "zstd")  # 16 MiB in some KB
    assert packed.header.size < 1 << 16
    with pytest.raises(TransportError, match="at most"):
        Unpacking(packed.header, 1 << 20)
    header = packed.header
    header.unpacked_size = 1_000  # less than it holds
    unpacking = Unpacking(header, 1 << 20)
    for chunk in packed.chunks():
        unpacking.add(chunk)
    with pytest.raises(TransportError, match="cannot be decompressed"):
        unpacking.content()
    header.compression = "pickle"
    with pytest.raises(TransportError, match='compressed with "pickle"'):
        Unpacking(header, 1 << 20)


def test_compressed_tasks_and_replies_go_over_the_wire(server: TransportServer, keys: Path) -> None:
    north = Running(server, keys, "north", Doubles(), compression="zstd")
    (answer,) = server.exchange([asked(0, [np.zeros(100_000, np.float32)])], 20)
    assert answer is not None
    assert answer.content is not None
    assert north.left[0].bytes < 4_000
    assert server.meter.clients[0].bytes_up == north.left[0].bytes


def test_a_site_that_declines_is_not_waited_for_and_may_come_back(own_keys: Path) -> None:
    """The server waited a minute for it in every phase, without a word."""

    def no(welcome: object) -> Doubles:
        raise DisclosureError("SECRET reasons of this site")

    for server in listening(own_keys, Policy(NAMES[:2], patience_s=60)):
        north = Running(server, own_keys, "north", Doubles())
        client = TransportClient(f"127.0.0.1:{server.port}", of(own_keys, "south"), no, version="1.0")
        with pytest.raises(DisclosureError):
            client.run()
        started = time.monotonic()
        assert server.wait_for(2, 60) == [0]
        good, none = server.exchange([asked(0), asked(1)], 60)
        assert time.monotonic() - started < 20
        assert good is not None
        assert good.content is not None
        assert none is not None
        assert none.error == "it takes no part: DisclosureError at this site; its operator knows more"
        south = Running(server, own_keys, "south", Doubles())
        until(lambda: server.connected() == [0, 1])  # noqa: B023
        (answer,) = server.exchange([asked(1)], 20)
        assert answer is not None
        assert answer.content is not None
    for one in (north, south):
        one.join(20)
