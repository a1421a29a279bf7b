"""The examples run as they are: scripts without a guard and notebooks, also with workers of Ray."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from run_notebook import run_notebook

from shoal import Run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RUNNER = ROOT / "tests" / "helpers" / "run_notebook.py"
# In processes of their own: classes of their `__main__` have to reach the workers of a Ray of their own.
WITH_RAY = {"own_data.ipynb", "own_model.py"}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == {
        *WITH_RAY, "recompute_epsilon.py", "strategies.py", "thyroid.ipynb", "watch_a_run.py",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITH_RAY))
def test_an_example_with_classes_of_its_own_on_ray(name: str, tmp_path: Path) -> None:
    program = [str(RUNNER)] if name.endswith(".ipynb") else []
    command = [sys.executable, *program, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "runs").iterdir()
    run = Run(path)
    assert run.status == "finished"
    assert run.scenario.resources.backend == "ray"
    assert (path / "config.toml").read_text().count('"python') == 2  # data and model
    assert f"{path.name}/report.html" in done.stdout
    assert "prediction" in done.stdout


@pytest.mark.slow
def test_the_strategies_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "strategies.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "[4/4] fedprox, seed 2: done" in told
    assert "strategy.name" in told


def test_the_callback_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "watch_a_run.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "it has stopped early" in told
    assert "metric_weakest_auc" in told


@pytest.mark.slow
def test_the_notebook_on_a_built_in_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_notebook(EXAMPLES / "thyroid.ipynb")
    told = capsys.readouterr().out
    assert "<td style='text-align:left'>5 of 5</td>" in told
    assert 'Did you mean "sgd"?' in told
