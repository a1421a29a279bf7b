"""The snippets of docs/python.md run, one after another, as its reader would type them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_snippets_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    namespace: dict[str, object] = {"__name__": "snippets"}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"docs/python.md, snippet {number}", "exec"), namespace)
    told = capsys.readouterr().out
    assert len(snippets) == 10
    assert 'unknown optimizer "sdg". Did you mean "sgd"?' in told
    assert "[4/4] adam, seed 2: done" in told
    assert told.rstrip().splitlines()[-1].startswith("stopped early 0.")
