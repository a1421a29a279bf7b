"""The generated pages are up to date, and what the docs tell people to type exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from shoal.simulations.cli import app
from shoal.simulations.cli.reference_pages import PAGES

ROOT = Path(__file__).parents[2]
PAGES_OF_OURS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_generated_page_is_up_to_date(page: str) -> None:
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == PAGES[page](), "run `make docs`"


def code(path: Path) -> Iterator[str]:
    """Yield the lines of fenced blocks and the inline code of a page."""
    text = path.read_text(encoding="utf-8")
    fenced = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.M | re.S)
    for block in fenced:
        yield from (line.strip().removeprefix("$ ") for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))


def test_every_shoal_command_in_the_docs_is_one() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    known = {name: set(getattr(command, "commands", ())) for name, command in group.commands.items()}
    seen = 0
    for path in PAGES_OF_OURS:
        for line in code(path):
            match = re.match(r"(?:\.venv/bin/|uv run )?shoal ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", line)
            if match:
                seen += 1
                assert match[1] in known, f"{path.relative_to(ROOT)}: {line}"
                inner = known[match[1]]
                assert not inner or match[2] in inner, f"{path.relative_to(ROOT)}: {line}"
    assert seen  # else the pattern finds nothing and the test cannot fail


def test_every_make_target_in_the_docs_is_one() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    for path in [*PAGES_OF_OURS, ROOT / ".ci" / "run"]:
        lines = code(path) if path.suffix == ".md" else iter(path.read_text(encoding="utf-8").splitlines())
        for line in lines:
            for target in re.findall(r"^make ([a-z][a-z-]*)", line):
                assert target in targets, f"{path.relative_to(ROOT)}: {line}"


def test_every_target_is_phony_and_helped() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert phony is not None
    assert set(re.findall(r"^([a-z-]+):", makefile, re.M)) == set(phony[1].split())
