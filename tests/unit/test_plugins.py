"""Helpers that many modules share: a user's own objects by name, arguments, nested tables, vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shoal.common.arguments import Argument, problems
from shoal.common.dotted import dotted
from shoal.common.errors import ConfigError
from shoal.common.plugins import form_problems, load_object, package_problems
from shoal.common.vectors import flatten, unflatten


def test_an_object_is_loaded_from_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text("class Mine: name = 'mine'\n")  # as one of our folders is called
    code = "from shoal.common.plugins import load_object; print(load_object('key', 'server:Mine').name)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "mine\n"


def test_a_module_with_the_name_of_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "types.py").write_text("def build(): pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigError, match=r'"types:build": .*/types\.py cannot be imported, because'):
        load_object("model.name", "types:build")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_module_anywhere:f", "ModuleNotFoundError"),
        ("json:nothing", "AttributeError"),
        ("antigravity_for_test:f", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_loaded_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    (tmp_path / "antigravity_for_test.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigError, match=f'model.name: "{path}" cannot be loaded: {reason}'):
        load_object("model.name", path)


@pytest.mark.parametrize("path", ["no colon", "module:", ":name", "my module:f", "a.b:c.d"])
def test_the_form_of_a_path_is_checked(path: str) -> None:
    assert form_problems("key", path) == [f'key: "{path}" is not of the form package.module:function']


def test_a_package_is_looked_for_without_being_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "never_run_for_test.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert package_problems("key", "never_run_for_test:f") == []
    assert 'no package or module "absent_for_test"' in package_problems("key", "absent_for_test.a:f")[0]


def test_only_one_module_imports_a_users_code() -> None:
    root = Path(__file__).parents[2]
    found = [
        str(path.relative_to(root))
        for folder in ("server", "clients", "common", "simulations")
        for path in (root / folder).rglob("*.py")
        if "sys.path[:]" in path.read_text(encoding="utf-8")
    ]
    assert found == ["common/plugins.py"]


@pytest.mark.parametrize(
    ("argument", "good", "bad", "wanted"),
    [
        (Argument(1, least=1), [1, 7], [0, 1.0, True, "1"], "a whole number of at least 1"),
        (Argument(0.5, below=1), [0, 0.99], [1, -0.1, None], "a number of at least 0 and below 1"),
        (Argument(0.5, positive=True, most=1.0), [1, 0.1], [0, 1.1], "a number above 0 and at most 1"),
        (Argument(None), [2, 2.5], ["2", True], "a number of at least 0"),
        (Argument(True), [True, False], [1, 0, "yes"], "true or false"),
        (
            Argument((8,), positive=True),
            [[1, 2], (3,), []],
            [[0], 3, [1.5]],
            "a list of whole numbers above 0",
        ),
        (Argument("a", choices=("a", "b")), ["a", "b"], ["c", ["a"], 1], "one of a, b"),
    ],
)
def test_arguments_take_what_they_say(
    argument: Argument, good: list[Any], bad: list[Any], wanted: str
) -> None:
    assert [value for value in good if not argument.fits(value)] == []
    assert [value for value in bad if argument.fits(value)] == []
    assert argument.wanted() == wanted


def test_problems_of_arguments_name_the_key() -> None:
    known = {"size": Argument(3, least=1)}
    assert list(problems("data.args", "images", {"size": 0}, known)) == [
        "data.args.size: expected a whole number of at least 1, got 0"
    ]
    (unknown,) = problems("data.args", "images", {"sise": 3}, known)
    assert 'Did you mean "size"?' in unknown


def test_nested_tables_become_dotted_keys() -> None:
    assert dotted({"a": {"b": 1, "c": {"d": [2]}}, "e": None, "f": {}}) == {"a.b": 1, "a.c.d": [2], "e": None}


@given(st.lists(npst.arrays(np.float32, npst.array_shapes(min_dims=0, max_dims=3, min_side=0)), min_size=1))
def test_unflatten_undoes_flatten(weights: list[np.ndarray]) -> None:
    numbers = flatten(weights, np.float64)
    assert numbers.shape == (sum(w.size for w in weights),)
    for found, w in zip(unflatten(numbers, weights), weights, strict=True):
        assert found.dtype == w.dtype
        np.testing.assert_array_equal(found, w)
