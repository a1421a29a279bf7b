"""Results of attacks on the run, with the guarantee: texts, table rows and the ROC on log axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shoal.common.events import Interval
from shoal.simulations.report.data_view import MOST_ROWS
from shoal.simulations.report.plot import CATEGORICAL, Figure, figure, title
from shoal.simulations.results.text import NONE, count, interval_parts, number

Found = Mapping[str, Any]

NAMES: Mapping[str, str] = {
    "membership": "Loss threshold",
    "online": "LiRA, online",
    "offline": "LiRA, offline",
    "inversion": "Gradient inversion",
    "canary": "Canaries",
    "lira": "LiRA",
}
MEMBERSHIP_HEAD = ("Attack", "Members", "Held out", "AUC", "Found at 0.1 %", "Found at 1 %", "Finest")
INVERSION_HEAD = ("Rows", "How", "", "Recognised", "Cosine", "Mean error", "PSNR")
CLIENTS_HEAD = ("Client", *MEMBERSHIP_HEAD)


def leakage_section(content: Found) -> dict[str, Any] | None:
    """Return the section, or `None` if the run was not attacked.

    Args:
        content: of leakage.json.
    """
    if not content:
        return None
    separations = dict(_separations(content["attacks"]))
    return {
        "guarantee": guarantee(content),
        "membership_head": MEMBERSHIP_HEAD,
        "membership": membership_rows(content),
        "roc": _roc(separations),
        "clients_head": CLIENTS_HEAD,
        "clients": client_rows(content),
        "inversion_head": INVERSION_HEAD,
        "inversion": inversion_rows(content),
        "bound": bound(content),
        "skipped": skipped(content),
    }


def guarantee(content: Found) -> str:
    """Return a sentence on the guarantee of the run."""
    privacy = content["promised"]
    if privacy["epsilon"] is None:
        return "The run has no privacy guarantee."
    unit = "row" if privacy["unit"] == "record" else "client"
    epsilon = number(privacy["epsilon"])
    return f"The run guarantees epsilon {epsilon} at delta {privacy['delta']:g} for each {unit}."


def membership_rows(content: Found) -> list[tuple[str, ...]]:
    """Return a row for each membership attack, under `MEMBERSHIP_HEAD`."""
    return [(NAMES[name], *_separation(found["overall"])) for name, found in _separations(content["attacks"])]


def client_rows(content: Found) -> list[tuple[str, ...]]:
    """Return a row per client and membership attack, for `CLIENTS_HEAD`; the first `MOST_ROWS` clients."""
    attacks = list(_separations(content["attacks"]))
    names = list(dict.fromkeys(name for _, found in attacks for name in found["clients"]))[:MOST_ROWS]
    return [
        (client, NAMES[name], *_separation(found["clients"][client]))
        for client in names
        for name, found in attacks
        if client in found["clients"]
    ]


def inversion_rows(content: Found) -> list[tuple[str, ...]]:
    """Return two rows per batch size, for the attack and for a guess, under `INVERSION_HEAD`."""
    rows: list[tuple[str, ...]] = []
    for found in content["attacks"].get("inversion", {}).get("sizes", []):
        batch, method = str(found["batch"]), found["method"]
        if "tokens" in found:
            values = [(f"tokens, F1 {number(found['tokens'][who])}", NONE) for who in ("attack", "guess")]
            rows += [(batch, method, "attack", NONE, NONE, *values[0])]
            rows += [("", "", "guess", NONE, NONE, *values[1])]
        elif "attack" in found:
            rows.append((batch, method, "attack", *_similarity(found["attack"])))
            rows.append(("", "another training row", "guess", *_similarity(found["guess"])))
        else:
            rows.append((batch, method, "", *[NONE] * 4))
    return rows


def bound(content: Found) -> list[str]:
    """Return sentences on what the canaries prove; an empty list without canaries."""
    found = content["attacks"].get("canary", {})
    if "epsilon_at_least" not in found:
        return []
    least, privacy = found["epsilon_at_least"], content["promised"]
    sentences = [
        f"With {_percent(found['confidence'])} confidence epsilon is at least {number(least)} for a "
        f"{found['unit']}, at delta {found['delta']:g}.",
        f"{count(found['correct'])} of {count(found['guesses'])} guesses about {count(found['canaries'])} "
        f"canaries were right; all correct guesses would have shown {number(found['most'])}.",
    ]
    if privacy["epsilon"] is not None and least > privacy["epsilon"]:
        sentences.append("That is above the guarantee, so the guarantee is broken.")
    elif privacy["epsilon"] is not None and found["most"] <= privacy["epsilon"]:
        sentences.append("This is too few canaries to refute the guarantee.")
    return sentences


def skipped(content: Found) -> list[str]:
    """Return why attacks were skipped."""
    reasons = []
    for name, found in content["attacks"].items():
        parts = (found, found.get("online", {}))
        reasons += [f"{NAMES[name]}: {part['skipped']}." for part in parts if "skipped" in part]
    return reasons


def _separations(attacks: Found) -> Iterator[tuple[str, Found]]:
    """Yield the membership attacks that scored rows."""
    lira = attacks.get("lira", {})
    every = [("membership", attacks.get("membership", {}))]
    every += [(name, lira.get(name, {})) for name in ("online", "offline")]
    yield from ((name, found) for name, found in every if "overall" in found)


def _separation(found: Found) -> tuple[str, ...]:
    hits = [share(one) for one in found["hits"]]
    finest = found["finest"]
    return (
        count(found["members"]),
        count(found["others"]),
        _interval(found["auc"]),
        *hits,
        f"{share(finest)} at {_percent(finest['fpr'])}",
    )


def share(hits: Found) -> str:
    """Return the true positive rate at a false positive rate, or the number of rows it would take."""
    found = hits["tpr"]
    if found is None:
        return f"needs {count(hits['needs'])} held out"
    low, high = (_percent(float(found[end])).removesuffix(" %") for end in ("low", "high"))
    return f"{_percent(float(found['value']))} [{low}, {high}]"


def _similarity(found: Found) -> tuple[str, ...]:
    psnr = found["psnr"]
    return (
        _percent(found["found"]),
        number(found["cosine"]),
        number(found["error"]),
        NONE if psnr is None else f"{psnr:.1f} dB",
    )


def _interval(found: Found) -> str:
    given = Interval(float(found["value"]), float(found["low"]), float(found["high"]))
    return " ".join(part for part in interval_parts(given) if part)


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def _roc(separations: Mapping[str, Found]) -> Figure | None:
    """Return the ROC curves on log axes, which show low false positive rates."""
    if not separations:
        return None
    traces: list[dict[str, Any]] = []
    lowest = 1.0
    for (name, found), colour in zip(separations.items(), CATEGORICAL, strict=False):
        points = [(x, y) for x, y in zip(found["roc"]["fpr"], found["roc"]["tpr"], strict=True) if x and y]
        lowest = min([lowest, *(x for x, _ in points)])
        traces.append(_line(NAMES[name], points, {"color": colour, "width": 2}))
    chance = {"color": "var(--muted)", "width": 1.5, "dash": "dot"}
    traces.append(_line("chance", [(lowest, lowest), (1.0, 1.0)], chance))
    axis = {"type": "log", "tickformat": ".3~%", "dtick": 1}
    return figure(
        traces,
        height=340,
        x={**axis, "title": title("false positive rate")},
        y={**axis, "title": title("true positive rate")},
        hovermode="closest",
    )


def _line(name: str, points: Sequence[tuple[float, float]], line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": dict(line),
        "hovertemplate": "%{y:.2%} found at %{x:.2%}",
    }
