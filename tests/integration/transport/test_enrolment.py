"""Keys that never leave their site, certificates that are revoked with all that came before, and an alarm."""

from __future__ import annotations

import logging
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner
from waiting import until
from wire import NAMES, Doubles, Running, dial, hello, listening, of, raw

from shoal.common.certificates import Revocations, issue, make_authority, request, revoke, sign
from shoal.common.errors import TransportError
from shoal.server.pilot.grpc_server import Policy, TransportServer
from shoal.simulations.cli import app


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "authority"
    make_authority(folder)
    issue(folder, "server", hosts=["127.0.0.1"])
    return folder


def test_a_site_enrols_and_takes_part_and_its_key_is_nowhere_else(authority: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    said = CliRunner().invoke(app, ["enrol", "north", "--folder", str(site)])
    assert said.exit_code == 0, said.output
    key = site / "north.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    shutil.copy(site / "north.csr", tmp_path / "received.csr")
    said = CliRunner().invoke(app, ["certs", str(authority), "--sign", str(tmp_path / "received.csr")])
    assert said.exit_code == 0, said.output
    assert "whose key stays there" in said.output
    assert not (authority / "north.key").exists()
    for name in ("north.crt", "ca.crt"):
        shutil.copy(authority / name, site / name)
    for server in listening(authority, Policy(NAMES)):
        client = Running(server, site, "north", Doubles())
        until(lambda: server.connected() == [0])  # noqa: B023
    client.join(20)
    assert client.error is None
    with pytest.raises(TransportError, match="exists already"):
        request(site, "north")


def test_requests_that_nobody_made_are_refused(authority: Path, tmp_path: Path) -> None:
    path = request(tmp_path, "north")
    good = x509.load_pem_x509_csr(path.read_bytes())
    der = bytearray(good.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1  # the signature
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    path.write_bytes(forged)
    with pytest.raises(TransportError, match="its signature, name or key is not valid"):
        sign(authority, path)
    key = ec.generate_private_key(ec.SECP256R1())
    for name in ("ca", "../evil", ""):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])
        asked = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        path.write_bytes(asked.public_bytes(serialization.Encoding.PEM))
        with pytest.raises(TransportError, match=r"invalid name|name or key is not valid"):
            sign(authority, path)
    path.write_text("no request")
    with pytest.raises(TransportError, match="not a certificate request in PEM format"):
        sign(authority, path)
    assert [one.name for one in authority.glob("*.crt")] != []
    assert not (authority / "north.crt").exists()


def test_a_name_is_revoked_with_all_its_certificates(authority: Path, tmp_path: Path) -> None:
    """South lost its laptop and got a new certificate: the old one could not be revoked any more."""
    old = tmp_path / "old"
    issue(authority, "south")
    shutil.copytree(authority, old)
    issue(authority, "south")
    issue(authority, "north")
    assert revoke(authority, "south") == 2
    policy = Policy(NAMES, Revocations(authority / "ca.crt", authority / "ca.crl"))
    for server in listening(authority, policy):
        for keys in (old, authority):
            assert 'the certificate of "south" is revoked' in dial(server, of(keys, "south"))
        client = Running(server, authority, "north", Doubles())
        until(lambda: server.connected() == [0])  # noqa: B023
    client.join(20)


def relay(server: TransportServer, source: str) -> Iterator[int]:
    """Pass TCP connections on to a server from another address of this machine; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65_536):
                other.sendall(data)
        except OSError:
            pass

    def accept() -> None:
        try:
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", server.port), source_address=(source, 0))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_one_key_at_two_machines_is_an_alarm(authority: Path, caplog: pytest.LogCaptureFixture) -> None:
    issue(authority, "north")
    stay = threading.Event()

    def messages() -> Iterator[bytes]:
        yield hello()
        stay.wait(20)

    class Elsewhere:
        port = 0

    with caplog.at_level(logging.WARNING, "shoal.transport"):
        for server in listening(authority, Policy(NAMES)):
            client = Running(server, authority, "north", Doubles())
            until(lambda: server.connected() == [0])  # noqa: B023
            for port in relay(server, "127.0.0.2"):
                there = Elsewhere()
                there.port = port
                second = threading.Thread(
                    target=lambda: raw(there, authority, "north", messages()),  # type: ignore[arg-type]  # noqa: B023
                    daemon=True,
                )
                second.start()
                until(lambda: "its key is in two places" in caplog.text)
                stay.set()
    client.join(20)
    assert "north connected from ipv4:127.0.0.2:" in caplog.text
    assert "while its session from ipv4:127.0.0.1:" in caplog.text
