"""Checks a received bundle: whether all files are unchanged, and who signed them."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from shoal.common.errors import IntegrityError, RunError
from shoal.simulations.handover.archive import CHECKSUMS, PUBLIC_KEY, SIGNATURE
from shoal.simulations.handover.signing import fingerprint, read_public, require_signature

_LINE: Final = re.compile(r"([0-9a-f]{64})  ([\w.-]+)")
_MOST_LISTED: Final = 1 << 20  # bytes of a checksum list, a key or a signature
_PART: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of checking an intact bundle.

    Attributes:
        files: names, in order.
        signer: fingerprint of the key that signed it; "" for an unsigned bundle.
        known: whether that is the expected key; otherwise the recipient must compare the fingerprint.
    """

    files: Sequence[str]
    signer: str
    known: bool


def check_bundle(path: Path, public_key: Path | None = None) -> Checked:
    """Check a whole bundle without unpacking it.

    Args:
        path: of the zip; public_key: the operator's, received by a channel other than the bundle.

    Raises:
        IntegrityError: something was changed, added or removed, or another key signed it.
        RunError: a file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _check(archive, path, public_key)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise IntegrityError(f"{path} is not a bundle, or is damaged: {error}") from error


def _check(archive: zipfile.ZipFile, path: Path, public_key: Path | None) -> Checked:
    names = [entry.filename for entry in archive.infolist()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise IntegrityError(f"{path} contains {', '.join(twice)} more than once")
    if CHECKSUMS not in names:
        raise IntegrityError(f"{path} is not a bundle: it contains no {CHECKSUMS}")
    listed = _small(archive, CHECKSUMS)
    expected = _expected(listed, path)
    present = set(names) - {CHECKSUMS, SIGNATURE}
    for what, odd in (("lacks", expected.keys() - present), ("has the unlisted", present - expected.keys())):
        if odd:
            raise IntegrityError(f"{path} {what} {', '.join(sorted(odd))}")
    for name, digest in expected.items():
        if _digest(archive, name) != digest:
            raise IntegrityError(f"{name} in {path} was changed: its SHA-256 differs from {CHECKSUMS}")
    signer, known = _signer(archive, names, listed, path, public_key)
    return Checked(sorted(names), signer, known)


def _expected(listed: bytes, path: Path) -> dict[str, str]:
    lines = listed.decode("ascii", "replace").splitlines()
    found = [_LINE.fullmatch(line) for line in lines]
    if None in found or not lines:
        raise IntegrityError(f"{CHECKSUMS} in {path} is not a list of checksums")
    expected = {match[2]: match[1] for match in found if match is not None}
    if len(expected) < len(lines):
        raise IntegrityError(f"{CHECKSUMS} in {path} lists a file more than once")
    return expected


def _signer(
    archive: zipfile.ZipFile, names: Sequence[str], listed: bytes, path: Path, public_key: Path | None
) -> tuple[str, bool]:
    """Return the fingerprint of the signing key, and whether it is the expected one."""
    if SIGNATURE not in names or PUBLIC_KEY not in names:
        if public_key is not None or SIGNATURE in names or PUBLIC_KEY in names:
            raise IntegrityError(f"{path} is not signed", hint="ask the operator for a signed bundle")
        return "", False
    key = read_public(_small(archive, PUBLIC_KEY), f"{PUBLIC_KEY} in {path}")
    require_signature(key, _small(archive, SIGNATURE), listed)
    if public_key is None:
        return fingerprint(key), False
    try:
        expected = read_public(public_key.read_bytes(), str(public_key))
    except OSError as error:
        raise RunError(f"cannot read {public_key}: {error.strerror}") from error
    if fingerprint(expected) != fingerprint(key):
        raise IntegrityError(
            f"{path} is signed with another key: {fingerprint(key)}, not {fingerprint(expected)}",
            hint="ask the operator which key is theirs, by a channel other than the one that brought the "
            "bundle",
        )
    return fingerprint(key), True


def _small(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a small file; one that claims to be larger is not read."""
    if archive.getinfo(name).file_size > _MOST_LISTED:
        raise IntegrityError(f"{name} is too large for a bundle")
    return archive.read(name)


def _digest(archive: zipfile.ZipFile, name: str) -> str:
    digest = sha256()
    with archive.open(name) as stream:
        while part := stream.read(_PART):
            digest.update(part)
    return digest.hexdigest()
