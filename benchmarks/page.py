"""Puts what was measured into pages of docs, so that they never say anything else."""

from __future__ import annotations

import json
from typing import Final

from benchmarks.children import ROOT
from benchmarks.results import FOLDER

DOCS: Final = ROOT / "docs"
_START, _END = "<!-- measured: begin -->", "<!-- measured: end -->"

# Page → name of a result → the command that makes it.
PAGES: Final = {
    "performance.md": {
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
        "state-rounds": "make bench BENCH=state",
        "private": "make bench BENCH=private",
    },
    "privacy.md": {
        "price-medical-thyroid": "make bench BENCH=price",
        "price-finance-lending": "make bench BENCH=price",
    },
}


def main() -> None:
    """Rewrite the measured parts of the pages."""
    for name in PAGES:
        path = DOCS / name
        before, _, rest = path.read_text(encoding="utf-8").partition(_START)
        _, _, after = rest.partition(_END)
        path.write_text(f"{before}{_START}\n{measured(name)}{_END}{after}", encoding="utf-8")


def measured(page: str) -> str:
    """Return all results of a page that are there: title, command, figure, table and notes."""
    return "\n".join(_section(name, command) for name, command in PAGES[page].items() if _there(name))


def _there(name: str) -> bool:
    return (FOLDER / f"{name}.json").exists()


def _section(name: str, command: str) -> str:
    title = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["title"]
    table = (FOLDER / f"{name}.md").read_text(encoding="utf-8").split("\n", 2)[2].strip()
    figure = f"\n![{title}](../benchmarks/results/{name}.svg)\n" if (FOLDER / f"{name}.svg").exists() else ""
    return f"## {title}\n\n`{command}`\n{figure}\n{table}\n"


if __name__ == "__main__":
    main()
