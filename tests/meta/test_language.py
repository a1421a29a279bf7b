"""Phrases of the project's old dialect that must not come back, in code, texts and docs.

The list is short on purpose: each phrase is wrong in any context, with what to write instead.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("shoal", "common", "clients", "server", "simulations", "docs")
FILES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "Makefile", "docker-compose.yml")
SUFFIXES = {".py", ".md", ".toml", ".j2", ".proto"}

INSTEAD = {
    r"(?:to|cannot) be had\b": "is (not) supported, is (not) available",
    r"\bas it falls\b": "as it is produced",
    r"\bto the same bits\b": "bit-identically",
    r"\bcounts? no more\b": "is revoked, is not counted any more",
    r"\blast words\b": "last output",
    r"\bpresent folder\b": "current directory",
    r"\bfolder where shoal was started\b": "current directory",
    r"\bturned round\b": "negated",
    r"\bsaid no hello\b": "no hello message",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\b(?:goes|go|gone|going) on with\b": "continue, resume",
    r"\brows? stands? behind\b": "is based on",
    r"\bas they fall\b": "as they are produced",
    r"\bthe promise\b": "the guarantee",
    r"\b(?:is|are) told of\b": "is called with, receives, is reported",
    r"\bleft behind\b|\bleaves behind\b": "writes, the run folder",
    r"\bby itself, so many\b": "independently, this many on average",
    r"\bof more, (?:as|so) many\b": "if there are more, a random sample of this size",
}


@lru_cache(maxsize=1)
def texts() -> list[tuple[str, str]]:
    """Return the name and content of each file that people read."""
    paths = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        paths += sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
    names = [str(path.relative_to(ROOT)) for path in paths if not path.is_symlink()]
    return [(n, (ROOT / n).read_text(encoding="utf-8")) for n in names]


@pytest.mark.parametrize("phrase", INSTEAD)
def test_a_phrase_of_the_old_dialect_has_not_come_back(phrase: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in texts()
        for match in pattern.finditer(text)
    ]
    assert found == [], f"write: {INSTEAD[phrase]}"
