"""Draws what was measured: SVG files beside the tables in results/, for docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.results import FOLDER

# After Okabe and Ito: told apart with any kind of colour blindness.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072b2", "#e69f00", "#009e73", "#7b889d"
_STYLE: Final = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "shoal",  # the same file for the same figures
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ec",
    "figure.constrained_layout.use": True,
}

Result = Mapping[str, Any]


def main() -> None:
    """Draw all figures whose measurements are there."""
    with mpl.rc_context(_STYLE):
        for name, draw in FIGURES.items():
            path = FOLDER / f"{name}.json"
            if path.exists():
                figure, axes = plt.subplots(figsize=(5.2, 3.0))
                draw(axes, json.loads(path.read_text(encoding="utf-8")))
                figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
                plt.close(figure)


def _line(axis: str, title: str, *, log_y: bool = True) -> Callable[[Axes, Result], None]:
    def draw(axes: Axes, result: Result) -> None:
        x = [int(key) for key in result["data"]]
        y = [median(found["seconds"]) for found in result["data"].values()]
        axes.plot(x, y, "o-", color=_BLUE)
        axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set(xlabel=axis, ylabel="seconds a round", title=title)

    return draw


def _workers(axes: Axes, result: Result) -> None:
    names = list(result["data"])
    axes.barh(names, [median(found["seconds"]) for found in result["data"].values()], color=_BLUE)
    axes.invert_yaxis()
    axes.set(xlabel="seconds a round", title="One worker and two")


def _memory(axes: Axes, result: Result) -> None:
    every = result["data"]["every"]
    for name, colour in (("server", _BLUE), ("workers", _ORANGE)):
        values = [value / 1e6 for value in result["data"][name]]
        axes.plot([k * every for k in range(len(values))], values, color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.set(xlabel="round", ylabel="private memory, MB", title="Memory over rounds")


def _server(axes: Axes, result: Result) -> None:
    names = list(result["data"])
    more = [(found["peak"] - found["before"]) / 1e6 for found in result["data"].values()]
    axes.barh(names, more, color=[_GREY if name.startswith("FedMedian") else _GREEN for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="MB more than before the first round", title="The server's memory by clients a round")


def _times(axes: Axes, result: Result) -> None:
    """Draw how many times as long as shoal the others take."""
    task, side, cores, times = (
        result["columns"].index(name) for name in ("task", "side", "cores", "× shoal")
    )
    rows = [row for row in result["rows"] if isinstance(row[times], float)]
    names = [f"{row[task].split()[0]}: {row[side]} ({row[cores]})" for row in rows]
    axes.figure.set_size_inches(6.4, 0.7 + 0.2 * len(rows))
    axes.barh(names, [row[times] for row in rows], color=_GREY)
    axes.axvline(1, color=_BLUE)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set(xlabel="× shoal's seconds a round (cores)", title="Peers beside shoal")


def _price(axes: Axes, result: Result) -> None:
    """Draw the mean metric over epsilon, a line a unit, beside that without a promise."""
    rows = result["data"]["rows"]
    for unit, colour in (("record", _BLUE), ("client", _ORANGE)):
        told = sorted((row for row in rows if row["unit"] == unit), key=lambda row: row["budget"])
        axes.plot([r["budget"] for r in told], [r["mean"] for r in told], "o-", color=colour, label=unit)
    axes.axhline(rows[0]["mean"], color=_GREY, linestyle=":", label="no guarantee")
    axes.set_xscale("log")
    budgets = sorted({row["budget"] for row in rows[1:]})
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.minorticks_off()
    axes.set(xlabel="epsilon: weaker promises to the right", ylabel="mean over sites", title=result["title"])
    axes.legend()


FIGURES: Final[Mapping[str, Callable[[Axes, Result], None]]] = {
    "growth-cohort": _line("clients a round", "Seconds by clients a round"),
    "growth-population": _line("clients in the population", "Seconds by population", log_y=False),
    "growth-size": _line("bytes of the model", "Seconds by size of the model"),
    "growth-workers": _workers,
    "growth-rounds": _memory,
    "growth-server": _server,
    "peers": _times,
    "price-medical-thyroid": _price,
    "price-finance-lending": _price,
}


if __name__ == "__main__":
    main()
