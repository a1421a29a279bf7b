"""Reports of runs and attack tables: one self-contained HTML file each, which also suits a phone."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.common.journal import write_atomically
from shoal.simulations.report.plot import Figure
from shoal.simulations.report.view import view

if TYPE_CHECKING:
    import jinja2

    from shoal.simulations.results.folder import RunFolder
    from shoal.simulations.sweeps.attack_table import AttackTable

__all__ = ["PageSection", "render", "render_attacks", "render_page", "write_report"]


def render(run: RunFolder) -> str:
    """Return the report of a run as one HTML document; of a run in progress, what there is so far."""
    return _rendered("report.html.j2", view(run))


def write_report(run: RunFolder) -> Path:
    """Write report.html, also for a run in progress; return its path."""
    path = run.path / "report.html"
    write_atomically(path, render(run))
    return path


def render_attacks(table: AttackTable) -> str:
    """Return the page of an attack table as one HTML document."""
    from shoal.simulations.report.attacks import view as attacks_view

    return _rendered("attacks.html.j2", attacks_view(table))


@dataclass(frozen=True, slots=True)
class PageSection:
    """A section of a separate page: a figure, a table, or both.

    Attributes:
        title: the heading; note: a sentence below it, or "".
        figure: `None` for none; columns: headings of the table; rows: its cells as text.
    """

    title: str
    note: str = ""
    figure: Figure | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def render_page(title: str, notes: Sequence[str], parts: Sequence[PageSection]) -> str:
    """Return a page about several runs, in the style of the report, as one HTML document."""
    return _rendered("page.html.j2", {"title": title, "notes": notes, "parts": parts})


def _rendered(name: str, content: Mapping[str, Any]) -> str:
    shared = {"style": _file("report.css"), "script": _file("report.js"), "plotly": _plotly()}
    return _environment().get_template(name).render(**content, **shared)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_json"] = _figure_json
    return environment


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _figure_json(figure: Figure) -> str:
    """Return JSON that is safe inside a script element: no "<" can close it."""
    text = json.dumps(figure, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@lru_cache(maxsize=1)
def _plotly() -> str:
    """Return the library that draws, compressed: a third of its size, and report.js unpacks it."""
    library = resources.files(__name__).joinpath("vendor", "plotly-cartesian.min.js").read_bytes()
    return base64.b64encode(gzip.compress(library, mtime=0)).decode()
