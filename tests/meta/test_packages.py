"""The generic package names are ours, and the lock files hold hashes and no host names."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("server", "clients", "common", "simulations")


@pytest.mark.parametrize("name", PACKAGES)
def test_imported_package_is_ours(name: str) -> None:
    # A dependency may install a package of the same generic name: see ADR 0001.
    file = importlib.import_module(name).__file__
    assert file is not None
    assert Path(file).parent == ROOT / name


@pytest.mark.parametrize("lock", ["run.txt", "dev.txt"])
def test_lock_names_versions_and_hashes_but_no_host(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*(--(index-url|extra-index-url|find-links|trusted-host)|-i|-f)\b", text, re.M)
    entries = re.split(r"\n(?=\S)", text.strip())
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,_-]+\])?==\S+( ; .*)? \\\n", entry), entry[:80]
        assert "--hash=sha256:" in entry


def test_dev_lock_holds_the_run_lock() -> None:
    # `make test` installs the dev lock alone, and tests what `make run` runs.
    run, dev = (pins(name) for name in ("run.txt", "dev.txt"))
    assert {name: dev.get(name) for name in run} == run


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", text, re.M))


def test_every_dependency_is_locked() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = pins("run.txt")
    for requirement in project["dependencies"]:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name is not None
        assert name.group().lower() in locked, "run `make lock`"
    locked = pins("dev.txt")
    for extra in project["optional-dependencies"].values():
        for requirement in extra:
            name, version = requirement.split("==")  # data are pickles or texts: an exact version
            assert locked[name.lower()] == version


def test_generated_protobuf_is_that_of_the_proto(tmp_path: Path) -> None:
    folder = ROOT / "simulations" / "transport"
    out = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    # In a process of its own: its protobuf and TensorFlow's do not go together in one.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", *out, str(folder / "wire.proto")]
    subprocess.run(command, check=True)
    for name in ("wire_pb2.py", "wire_pb2.pyi"):
        assert (folder / name).read_text() == (tmp_path / name).read_text(), "run `make proto`"
