"""Puts what was measured into docs/performance.md, so that the page never says anything else."""

from __future__ import annotations

import json
from typing import Final

from benchmarks.children import ROOT
from benchmarks.results import FOLDER

PAGE: Final = ROOT / "docs" / "performance.md"
_START, _END = "<!-- measured: begin -->", "<!-- measured: end -->"

# Name of a result → the command that makes it.
ORDER: Final = {
    "peers": "make bench BENCH=peers",
    "floor": "make bench BENCH=floor",
    "transport": "make bench BENCH=transport",
    "secure": "make bench BENCH=secure",
    "audit": "make bench BENCH=audit",
    "growth-cohort": "make bench BENCH=growth",
    "growth-population": "make bench BENCH=growth",
    "growth-size": "make bench BENCH=growth",
    "growth-workers": "make bench BENCH=growth",
    "growth-rounds": "make bench BENCH=growth",
    "growth-server": "make bench BENCH=growth",
    "private": "make bench BENCH=private",
}


def main() -> None:
    """Rewrite the measured part of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    PAGE.write_text(f"{before}{_START}\n{measured()}{_END}{after}", encoding="utf-8")


def measured() -> str:
    """Return all results that are there: title, command, figure, table and notes."""
    return "\n".join(_section(name, command) for name, command in ORDER.items() if _there(name))


def _there(name: str) -> bool:
    return (FOLDER / f"{name}.json").exists()


def _section(name: str, command: str) -> str:
    title = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["title"]
    table = (FOLDER / f"{name}.md").read_text(encoding="utf-8").split("\n", 2)[2].strip()
    figure = f"\n![{title}](../benchmarks/results/{name}.svg)\n" if (FOLDER / f"{name}.svg").exists() else ""
    return f"## {title}\n\n`{command}`\n{figure}\n{table}\n"


if __name__ == "__main__":
    main()
