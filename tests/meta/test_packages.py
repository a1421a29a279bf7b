"""All code is imported as `shoal.…` and once; the lock files hold hashes and no host names."""

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
def test_package_is_the_top_level_folder_of_its_name(name: str) -> None:
    file = importlib.import_module(f"shoal.{name}").__file__
    assert file is not None
    assert Path(file).resolve().parent == ROOT / name


@pytest.mark.parametrize("name", PACKAGES)
def test_package_refuses_to_load_under_its_bare_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(ImportError, match=f"the package is shoal.{name}"):
        importlib.import_module(name)


def test_an_installation_exposes_one_name(tmp_path: Path) -> None:
    # Outside the checkout, a user's own server.py or common.py has nothing of ours to meet.
    code = "import importlib.util as u; print([n for n in %r if u.find_spec(n)], bool(u.find_spec('shoal')))"
    command = [sys.executable, "-c", code % ((*PACKAGES, "benchmarks"),)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[] True"


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
    folder = ROOT / "common" / "wire"
    out = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    # In a process of its own: its protobuf and TensorFlow's do not go together in one.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", *out, str(folder / "wire.proto")]
    subprocess.run(command, check=True)
    for name in ("wire_pb2.py", "wire_pb2.pyi"):
        assert (folder / name).read_text() == (tmp_path / name).read_text(), "run `make proto`"
