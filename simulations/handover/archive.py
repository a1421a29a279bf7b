"""A reproducible zip: its bytes depend only on the files in it. With checksums and a signature."""

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
_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store
_MODE: Final = 0o100644 << 16


def checksums(files: Mapping[str, bytes]) -> bytes:
    """Return the list of checksums in the format of `sha256sum --check`."""
    return "".join(f"{sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


def sealed(files: Mapping[str, bytes], key: Ed25519PrivateKey | None) -> dict[str, bytes]:
    """Return the files, the public key, the checksums of all of them, and the signature of the checksums.

    Args:
        files: name → content; key: of the operator, or `None` for no signature.
    """
    found = dict(files)
    if key is not None:
        found[PUBLIC_KEY] = public_pem(key.public_key())
    listed = checksums(found)
    found[CHECKSUMS] = listed
    if key is not None:
        found[SIGNATURE] = key.sign(
            listed
        )  # Ed25519 is deterministic: the same key and list give the same signature
    return found


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of the files: sorted, uncompressed, without timestamps.

    With compression, the bytes would depend on the version of zlib; the model is already compressed.
    """
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr, entry.create_system = _MODE, 3  # marked as Unix files on every system
            archive.writestr(entry, files[name])
    return sink.getvalue()
