"""Keys and a server for the tests of the transport."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from wire import NAMES, listening

from shoal.common.certificates import issue, make_authority
from shoal.server.pilot.grpc_server import Policy, TransportServer


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder)
    issue(folder, "server", hosts=["127.0.0.1"])
    for name in (*NAMES, "stranger"):
        issue(folder, name)
    other = folder / "other"
    make_authority(other, "somebody else")
    issue(other, "north")
    return folder


@pytest.fixture
def server(keys: Path) -> Iterator[TransportServer]:
    yield from listening(keys, Policy(NAMES, patience_s=20))
