"""The disk fills up in the middle of a run: the error is clear, nothing is lost, and the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rounds import untimed

from shoal.common.config.file import load_scenario
from shoal.simulations.results import RunFolder
from shoal.simulations.run import resume_run, run_scenario

ROOT = Path(__file__).parents[3]
SHOAL = [sys.executable, "-m", "shoal"]
RUN = ["run", "linear", "--backend", "serial", "--rounds", "40", "--quiet", "--output"]


def shoal(*words: str, wrap: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which has a disk of its own: `wrap` mounts it."""
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*wrap, *SHOAL, *words]
    return subprocess.run(command, env=given, text=True, capture_output=True, check=False, timeout=200)


def can_mount() -> bool:
    """Whether this user may mount a file system of its own, which some containers forbid."""
    if shutil.which("unshare") is None:
        return False
    test = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(test, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run on a disk with room."""
    directory = tmp_path_factory.mktemp("whole")
    given = ["resources.backend=serial", "training.rounds=40", f"output.directory={directory}"]
    return run_scenario(load_scenario("linear", given))


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this user may not mount a small disk")
@pytest.mark.parametrize("kilobytes", [50, 70, 90, 110])
def test_a_full_disk_is_told_and_the_run_goes_on_elsewhere(
    tmp_path: Path, whole: Path, kilobytes: int
) -> None:
    """At these sizes it fills up at different files, of a round or of the end."""
    small, saved = tmp_path / "small", tmp_path / "saved"
    small.mkdir()
    saved.mkdir()
    save = f"code=$?; cp -r {small}/* {saved}; exit $code"  # the disk goes with its process
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {small}"
    full = shoal(*RUN, str(small), wrap=("unshare", "-rm", "sh", "-c", f'{mount} && "$@"; {save}', "sh"))
    assert full.returncode in (16, 18), full.stderr  # CheckpointError, StorageError
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    assert "shoal resume" in full.stderr
    (folder,) = saved.iterdir()
    before = untimed(folder)
    assert not list(folder.rglob("*.part"))

    run = RunFolder(folder)
    resume_run(run, run.scenario())
    run.close()
    np.testing.assert_equal(untimed(folder), untimed(whole))
    np.testing.assert_equal(untimed(folder)[: len(before)], before)
    models = [json.loads((path / "summary.json").read_text())["closed_form"] for path in (folder, whole)]
    assert models[0] == models[1]
