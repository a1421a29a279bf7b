"""What differential privacy costs: DP-SGD beside plain training, and clipped stacks beside free ones.

Both sides of a ratio run in one process of one thread, in turns.
"""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from benchmarks import results
from benchmarks.children import measure
from benchmarks.private_side import ratio

# What is measured → arguments of `benchmarks/private_side.py`, and the aim.
CASES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "DP-SGD, MLP 30-64-1": ({"kind": "record", "task": "mlp", "clients": 30, "batch": 32}, "≤ 2"),
    "DP-SGD, CNN 1.66 M": ({"kind": "record", "task": "cnn", "clients": 5, "batch": 32}, ""),
    "DP-SGD, LSTM 400 k": ({"kind": "record", "task": "lstm", "clients": 5, "batch": 32}, ""),
    "clipped updates, stacks of the MLP, 100 clients": ({"kind": "clip", "clients": 100}, "≤ 1.15"),
}
_TURNS: Final = {"mlp": 40, "cnn": 5, "lstm": 5, "clip": 40}
_NOTES: Final = (
    "A ratio is the median over turns of the seconds with protection over the mean of those without before "
    "and after it, in one process of one thread. Batches have 32 rows; DP-SGD draws them "
    "and its noise in that time.",
    "The MLP needs no row's gradient; the CNN's and the LSTM's are made of up to 256 rows at once, and are "
    "as large as the model for each row.",
)


def main(*, quick: bool = False) -> None:
    """Measure all cases and write results/private.*."""
    rows: list[list[object]] = []
    data = {}
    for name, (arguments, aim) in list(CASES.items())[:: 3 if quick else 1]:
        kind = arguments.get("task", "clip")
        found = measure("private_side", {**arguments, "turns": 2 if quick else _TURNS[kind]})
        data[name] = found
        rows.append([name, median(found["without"]), median(found["given"]), ratio(found), aim])
    columns = ("what", "without, s", "with, s", "ratio", "aim")
    results.save("private", "Seconds with and without protection", columns, rows, notes=_NOTES, data=data)
