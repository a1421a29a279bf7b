"""A zip whose bytes depend on its files alone, with their checksums and a signature over these."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.simulations.handover.signing import public_pem

CHECKSUMS: Final = "CHECKSUMS"
SIGNATURE: Final = "CHECKSUMS.sig"
PUBLIC_KEY: Final = "operator.pub"
_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
_MODE: Final = 0o100644 << 16


def checksums(files: Mapping[str, bytes]) -> bytes:
    """Return the list that `sha256sum --check` reads."""
    return "".join(f"{sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def sealed(files: Mapping[str, bytes], key: Ed25519PrivateKey | None) -> dict[str, bytes]:
    """Return the files with the public key, the checksums of all, and the signature over the checksums.

    Args:
        files: name → content; key: of the operator, or `None` for no signature.
    """
    found = dict(files)
    if key is not None:
        found[PUBLIC_KEY] = public_pem(key.public_key())
    listed = checksums(found)
    found[CHECKSUMS] = listed
    if key is not None:
        found[SIGNATURE] = key.sign(listed)  # Ed25519 draws nothing: one key and one list give one signature
    return found


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of the files: sorted, uncompressed, without the time of its making.

    Compression would make the bytes depend on the version of zlib; the model is compressed already.
    """
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr, entry.create_system = _MODE, 3  # a Unix file, wherever it is made
            archive.writestr(entry, files[name])
    return sink.getvalue()
