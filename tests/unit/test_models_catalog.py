"""What can be said of models without TensorFlow: names, arguments, losses, documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shoal.common.config import ModelConfig, TrainingConfig
from shoal.common.models import LOSSES, MODELS, check, check_loss
from shoal.common.schema import Task

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_checks_do_not_import_keras(tmp_path: Path) -> None:
    (tmp_path / "own_model_never_run.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    code = (
        "import os, sys; from shoal.common.config import ModelConfig, TrainingConfig\n"
        "from shoal.common.models import check, check_loss\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "assert check(ModelConfig(name='mpl')) and check_loss(TrainingConfig(loss='x'))\n"
        "assert check(ModelConfig(name='own_model_never_run:build')) == []\n"
        "heavy = {'keras', 'tensorflow', 'flwr', 'own_model_never_run'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("mpl", {}, 'Did you mean "mlp"?'),
        ("mlp", {"hiden": [3]}, 'Did you mean "hidden"?'),
        ("mlp", {"hidden": 64}, "expected a list of whole numbers above 0, got 64"),
        ("mlp", {"hidden": [64, 0]}, "expected a list of whole numbers above 0, got [64, 0]"),
        ("mlp", {"dropout": 1.0}, "expected a number of at least 0 and below 1, got 1.0"),
        ("mlp", {"l2": -0.1}, "expected a number of at least 0, got -0.1"),
        ("mlp", {"activation": "rellu"}, "expected one of celu"),
        ("mlp", {"activation": ["relu"]}, "got ['relu']"),
        ("cnn", {"kernel": 2.5}, "expected a whole number above 0, got 2.5"),
        ("cnn", {"kernel": True}, "got True"),
        ("linear", {"zero_start": 1}, "expected true or false, got 1"),
        ("no package:build", {}, "not of the form package.module:function"),
        ("package.module:", {}, "not of the form package.module:function"),
        ("no_such_package_anywhere.models:build", {}, 'no package or module "no_such_package_anywhere"'),
    ],
)
def test_what_is_wrong_is_said(name: str, args: dict[str, Any], expected: str) -> None:
    found = check(ModelConfig(name=name, args=args))
    assert len(found) == 1
    assert expected in found[0]


def test_all_problems_are_listed() -> None:
    assert len(check(ModelConfig(name="cnn", args={"kernel": 0, "dense": -1, "denses": 3}))) == 3


@pytest.mark.parametrize("name", MODELS)
def test_defaults_fit_themselves(name: str) -> None:
    defaults = {n: a.default for n, a in MODELS[name].arguments.items()}
    assert check(ModelConfig(name=name, args=defaults)) == []


@pytest.mark.parametrize(
    ("loss", "task", "expected"),
    [
        ("auto", "binary", None),
        ("huber", "regression", None),
        ("huber", None, None),
        ("hubert", None, 'Did you mean "huber"?'),
        ("categorical_crossentropy", "multiclass", 'Did you mean "sparse_categorical_crossentropy"?'),
        ("huber", "binary", "does not fit a binary task; use one of binary_crossentropy"),
        ("binary_crossentropy", "multiclass", "use one of sparse_categorical_crossentropy"),
    ],
)
def test_losses_are_checked_by_name_and_task(loss: str, task: Task | None, expected: str | None) -> None:
    found = check_loss(TrainingConfig(loss=loss), task)
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


# --- documentation


def shown(default: object) -> str:
    """A default as it is written in TOML."""
    if isinstance(default, tuple):
        return str(list(default))
    return str(default).lower() if isinstance(default, bool) else f"{default}"


def docs_row(name: str) -> str:
    """The line of the table in docs/models.md."""
    entry = MODELS[name]
    args = ", ".join(f"`{n}` = {shown(a.default)}" for n, a in entry.arguments.items())
    kinds, tasks = ", ".join(entry.kinds), "all" if len(entry.tasks) == 3 else ", ".join(entry.tasks)
    return f"| `{name}` | {entry.summary} | {kinds} | {tasks} | {args} |"


def docs_loss_row(name: str) -> str:
    """The line of the table of losses."""
    return f"| `{name}` | {', '.join(LOSSES[name].tasks)} |"


def test_the_page_has_a_row_for_each() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [row for row in map(docs_row, MODELS) if row not in lines] == []
    assert [row for row in map(docs_loss_row, LOSSES) if row not in lines] == []
