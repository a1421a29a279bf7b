"""A pilot's own files are checked before the connection, and errors name the file at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.common.certificates import client_credentials, issue, make_authority, server_credentials
from shoal.common.cli_options import tls_files
from shoal.common.errors import ConfigError, TransportError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pilot")
    make_authority(folder)
    issue(folder, "north")
    issue(folder, "south")
    issue(folder, "expired", days=-1)
    (folder / "other").mkdir()
    make_authority(folder / "other")
    (folder / "text.crt").write_text("north\n")
    return folder


@pytest.mark.parametrize("credentials", [client_credentials, server_credentials])
@pytest.mark.parametrize(
    ("ca", "certificate", "key", "says"),
    [
        ("ca.crt", "north.crt", "south.key", "south.key is not the key of .*north.crt"),
        (
            "other/ca.crt",
            "north.crt",
            "north.key",
            "north.crt is not issued by the authority of",
        ),
        ("ca.crt", "expired.crt", "expired.key", "expired.crt is valid from .* and it is .* here"),
        ("ca.crt", "text.crt", "north.key", "text.crt is not a certificate"),
        ("ca.crt", "north.crt", "north.crt", "north.crt is not a private key"),
        ("ca.crt", "north.crt", "nowhere.key", "cannot read .*nowhere.key"),
    ],
)
def test_the_file_at_fault_is_named(
    files: Path, credentials: Callable[..., object], ca: str, certificate: str, key: str, says: str
) -> None:
    with pytest.raises(TransportError, match=says):
        credentials(files / ca, files / certificate, files / key)


def test_files_that_belong_together_are_accepted(files: Path) -> None:
    assert client_credentials(files / "ca.crt", files / "north.crt", files / "north.key")


@pytest.mark.parametrize("address", ["https://a.org:9443", "a.org", "a.org:", "9443"])
def test_an_address_without_port_or_with_a_scheme_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        tls_files(address, False, Path("ca"), Path("crt"), Path("key"))
