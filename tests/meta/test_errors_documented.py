"""Every error class has an exit code of its own, and stands in the tree and in docs/errors.md."""

from __future__ import annotations

import re
from pathlib import Path

from shoal.common import errors
from shoal.simulations.cli.reference_pages import error_classes

ROOT = Path(__file__).parents[2]


def test_exit_codes_are_unique_and_free() -> None:
    codes = [error.exit_code for error in error_classes()]
    assert len(codes) == len(set(codes))
    assert all("exit_code" in vars(error) for error in error_classes())
    # 0 is success, 2 the command line's own, 126 and above belong to the shell.
    assert not {0, 2} & set(codes)
    assert max(codes) < 126


def test_the_tree_at_the_top_of_the_module_is_the_true_one() -> None:
    drawn = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([│├└─ ]*)([A-Z]\w+Error)\s+(\d+)\s", line)
        if match:
            depth = len(match[1]) // 4
            ancestors = [*ancestors[:depth], match[2]]
            drawn[match[2]] = (int(match[3]), ancestors[depth - 1] if depth else "Exception")
    true = {error.__name__: (error.exit_code, error.__bases__[0].__name__) for error in error_classes()}
    assert drawn == true


def test_each_error_has_a_row_in_the_docs() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for error in error_classes():
        assert f"| {error.exit_code} | `{error.__name__}` |" in text


def test_no_error_class_hides_outside_the_tree() -> None:
    # An error of our own elsewhere would have no exit code and no help.
    for package in ("server", "clients", "common", "simulations"):
        for path in (ROOT / package).rglob("*.py"):
            if path != ROOT / "common" / "errors.py":
                found = re.findall(
                    r"^\s*class (\w+)\((?:\w+\.)*\w*(?:Error|Exception)\)", path.read_text("utf-8"), re.M
                )
                assert not found, f"{path.relative_to(ROOT)} defines {found}: put it into common/errors.py"
