"""Reports, of a run and of an attack table: one HTML file each that needs no network, also for a phone."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from simulations.report.plot import Figure
from simulations.report.view import view

if TYPE_CHECKING:
    import jinja2

    from simulations.results.folder import RunFolder
    from simulations.robustness.table import Table

__all__ = ["render", "render_attacks"]


def render(run: RunFolder) -> str:
    """Return the report of a run, of whatever it has told so far, as one HTML document."""
    return _template("report.html.j2").render(
        **view(run),
        style=_file("report.css"),
        script=_file("report.js"),
        plotly=_plotly(),
    )


def render_attacks(table: Table) -> str:
    """Return the page of an attack table as one HTML document."""
    from simulations.report.attacks import view as attacks_view

    return _template("attacks.html.j2").render(
        **attacks_view(table),
        style=_file("report.css"),
        script=_file("report.js"),
        plotly=_plotly(),
    )


@lru_cache
def _template(name: str) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_json"] = _figure_json
    return environment.get_template(name)


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _figure_json(figure: Figure) -> str:
    """Return JSON that may stand within a script element: no "<" can end it."""
    text = json.dumps(figure, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
