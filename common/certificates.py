"""Certificates of a pilot: a certificate authority, keys for server and clients, identity of peers.

Keys are NIST P-256; names are in the subject's common name, and a server's hosts in its subject alternative
names (RFC 5280).
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.common.errors import TransportError
from shoal.common.journal import append_line, now, write_atomically

_MADE_BY_CERTS: Final = "`shoal certs` creates keys and certificates for a pilot"
AUTHORITY: Final = "ca"
_ISSUED: Final = "issued.jsonl"  # serial numbers of all certificates, also of those that were replaced
_CA_DAYS: Final = 3650
_log = logging.getLogger("shoal.transport")


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of the other side.

    Attributes:
        name: common name of its certificate, or ""; serial: number of the certificate, or 0.
        peer: its address.
    """

    name: str
    serial: int
    peer: str

    def __str__(self) -> str:
        return f'"{self.name}" at {self.peer}' if self.name else self.peer


def identity(auth_context: Mapping[str, Iterable[bytes]], peer: str) -> Identity:
    """Return the identity of a peer from the certificate that TLS has verified.

    Args:
        auth_context: of the gRPC call; peer: its address.
    """
    for pem in auth_context.get("x509_pem_cert", ()):
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(names[0].value) if len(names) == 1 else ""
        return Identity(name, certificate.serial_number, peer)
    return Identity("", 0, peer)


def make_authority(folder: Path, name: str = "shoal pilot") -> None:
    """Create ca.crt, ca.key and an empty revocation list, ca.crl, in a folder.

    Raises:
        TransportError: there is one already; replacing it would invalidate all its certificates.
    """
    if (folder / f"{AUTHORITY}.key").exists():
        raise TransportError(f"{folder} already contains an authority", hint="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    subject = _name(name)
    built = (
        _builder(subject, subject, key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder, AUTHORITY, key, built)
    _write_list(folder, built, key, [])


def issue(folder: Path, name: str, *, hosts: Sequence[str] = (), days: int = 365) -> None:
    """Create NAME.crt and NAME.key, signed by the authority in a folder.

    Args:
        folder: contains ca.crt and ca.key, and gets the new files.
        name: of the client or server.
        hosts: names and addresses of a server; empty for a client's certificate.
        days: validity in days; below 1, the certificate has expired already.

    Raises:
        TransportError: there is no authority, or the name is invalid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    _write(folder, name, key, _signed(folder, name, key.public_key(), hosts, days))


def request(folder: Path, name: str) -> Path:
    """Create NAME.key and a certificate request, NAME.csr (RFC 2986), at a site; return the request's path.

    The key never leaves the site: the authority signs the request (`sign`), and sends back NAME.crt.

    Raises:
        TransportError: the name is invalid, or there is a key of that name already.
    """
    _check_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / f"{name}.key").exists():
        raise TransportError(f"{folder / name}.key exists already", hint="choose another folder or name")
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(_name(name)).sign(key, hashes.SHA256())
    _write_key(folder, name, key)
    path = folder / f"{name}.csr"
    write_atomically(path, asked.public_bytes(serialization.Encoding.PEM))
    return path


def sign(folder: Path, path: Path, days: int = 365) -> str:
    """Create NAME.crt for a site's request, and return the name in it.

    Args:
        folder: contains ca.crt and ca.key, and gets NAME.crt; path: of the request; days: validity.

    Raises:
        TransportError: it is no valid request of a P-256 key, or the name is invalid.
    """
    try:
        asked = x509.load_pem_x509_csr(_read(path))
    except ValueError:
        raise TransportError(f"{path} is not a certificate request in PEM format") from None
    names = asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    key = asked.public_key()
    if not asked.is_signature_valid or len(names) != 1 or not isinstance(key, ec.EllipticCurvePublicKey):
        raise TransportError(
            f"{path} is not a request that a site made: its signature, name or key is not valid",
            hint="make it with `shoal enrol NAME`",
        )
    name = str(names[0].value)
    _check_name(name)
    certificate = _signed(folder, name, key, (), days)
    write_atomically(folder / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
    return name


def revoke(folder: Path, name: str) -> int:
    """Put all certificates of a name on the authority's revocation list, ca.crl (RFC 5280, section 5).

    Returns:
        How many certificates were ever issued to that name.

    Raises:
        TransportError: there is no such certificate, or no authority.
    """
    issued = {int(one["serial"], 16) for one in _issued(folder) if one["name"] == name}
    path = folder / f"{name}.crt"
    if path.exists() or not issued:
        issued.add(x509.load_pem_x509_certificate(_read(path)).serial_number)
    before = x509.load_pem_x509_crl(_read(folder / f"{AUTHORITY}.crl"))
    ca, signer = _authority(folder)
    _write_list(folder, ca, signer, [*(one.serial_number for one in before), *issued])
    return len(issued)


def _check_name(name: str) -> None:
    if not name or name == AUTHORITY or Path(name).name != name or not name.isprintable() or len(name) > 64:
        raise TransportError(f"invalid name of a client: {name!r}; expected 1 to 64 characters and no path")


def _signed(
    folder: Path, name: str, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], days: int
) -> x509.Certificate:
    """Return a certificate, after its serial number is in the authority's list of all it ever issued."""
    _check_name(name)
    ca, signer = _authority(folder)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_name(name), ca.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(_host, hosts)), critical=False)
    found = builder.sign(signer, hashes.SHA256())
    serial = f"{found.serial_number:x}"
    append_line(folder / _ISSUED, {"time": now(), "name": name, "serial": serial})
    return found


def _issued(folder: Path) -> list[dict[str, str]]:
    path = folder / _ISSUED
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


class Revocations:
    """The serial numbers of an authority's revocation list, reloaded when the file changes.

    If the list is not signed by the authority or cannot be read, this is logged, and the last valid list
    stays in force.

    Args:
        ca: certificate of the authority; path: of its list.

    Raises:
        TransportError: there is no valid list at the start.
    """

    def __init__(self, ca: Path, path: Path) -> None:
        self._key = x509.load_pem_x509_certificate(_read(ca)).public_key()
        self._path = path
        self._stamp = self._stamp_now()
        self._serials = self._load()

    def serials(self) -> Set[int]:
        """Return the serial numbers of the revoked certificates."""
        stamp = self._stamp_now()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._serials = self._load()
                _log.info("%s: %d certificates are revoked", self._path, len(self._serials))
            except TransportError as error:
                _log.warning("%s; the previous list stays in force", error.message)
        return self._serials

    def _stamp_now(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0, 0
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _load(self) -> Set[int]:
        try:
            found = x509.load_pem_x509_crl(_read(self._path))
        except ValueError as error:
            raise TransportError(f"{self._path} is not a revocation list: {error}") from error
        if not isinstance(self._key, ec.EllipticCurvePublicKey) or not found.is_signature_valid(self._key):
            raise TransportError(f"{self._path} is not signed by the authority")
        return frozenset(one.serial_number for one in found)


def server_credentials(ca: Path, certificate: Path, key: Path) -> grpc.ServerCredentials:
    """Return credentials of a server that requires a certificate of every client.

    Raises:
        TransportError: a file cannot be read.
    """
    _check_files(ca, certificate, key)
    pair = (_read(key), _read(certificate))
    return grpc.ssl_server_credentials([pair], _read(ca), require_client_auth=True)


def client_credentials(ca: Path, certificate: Path, key: Path) -> grpc.ChannelCredentials:
    """Return credentials of a client.

    Raises:
        TransportError: a file cannot be read.
    """
    _check_files(ca, certificate, key)
    return grpc.ssl_channel_credentials(_read(ca), _read(key), _read(certificate))


def _check_files(ca: Path, certificate: Path, key: Path) -> None:
    """Check this side's files before they are used: a failed handshake does not say which is at fault.

    Raises:
        TransportError: it names the file.
    """
    authority, own = _certificate(ca), _certificate(certificate)
    try:
        private = serialization.load_pem_private_key(_read(key), None)
    except (TypeError, ValueError):
        raise TransportError(
            f"{key} is not a private key in PEM format without a password", hint=_MADE_BY_CERTS
        ) from None
    if private.public_key() != own.public_key():
        raise TransportError(
            f"{key} is not the key of {certificate}", hint="give the pair that belongs together"
        )
    try:
        own.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError):
        raise TransportError(
            f"{certificate} is not issued by the authority of {ca}",
            hint="both sides need certificates of one authority",
        ) from None
    now = datetime.now(UTC)
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        raise TransportError(
            f"{certificate} is valid from {own.not_valid_before_utc:%Y-%m-%d} to "
            f"{own.not_valid_after_utc:%Y-%m-%d}, and it is {now:%Y-%m-%d} here",
            hint="check the clock, or have the authority issue another certificate (`shoal certs`)",
        )


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError:
        raise TransportError(f"{path} is not a certificate in PEM format", hint=_MADE_BY_CERTS) from None


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        ca = x509.load_pem_x509_certificate((folder / f"{AUTHORITY}.crt").read_bytes())
        signer = serialization.load_pem_private_key((folder / f"{AUTHORITY}.key").read_bytes(), None)
    except (OSError, ValueError) as error:
        raise TransportError(f"{folder} has no usable authority: {error}") from error
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return ca, signer


def _write_list(
    folder: Path, ca: x509.Certificate, signer: ec.EllipticCurvePrivateKey, serials: Iterable[int]
) -> None:
    moment = datetime.now(UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(moment)
        .next_update(moment + timedelta(days=_CA_DAYS))
    )
    for serial in sorted(set(serials)):
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment).build()
        builder = builder.add_revoked_certificate(revoked)
    found = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    write_atomically(folder / f"{AUTHORITY}.crl", found)  # a server may be reading


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TransportError(f"cannot read {path}: {error.strerror}", hint=_MADE_BY_CERTS) from error


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    moment = datetime.now(UTC)
    end = moment + timedelta(days=days)
    # Valid from an hour ago, because clocks may differ.
    start = min(moment - timedelta(hours=1), end - timedelta(days=1))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    _write_key(folder, name, key)
    write_atomically(folder / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(folder: Path, name: str, key: ec.EllipticCurvePrivateKey) -> None:
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(folder / f"{name}.key", secret, mode=0o600)
