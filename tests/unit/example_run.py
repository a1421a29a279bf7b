"""A small federated training in numpy, told to a `RunFolder`: true numbers for tests of results and report.

Five sites of the sizes and positive shares of the thyroid data (8 informative numbers and noise), a
logistic regression trained by FedAvg, alone, and on pooled rows, tested with AUC, accuracy and loss.
Only the seconds are not measured: they follow from the rows, so that tests can count on them.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shoal.common.config import Scenario
from shoal.common.events import ClientRow, Interval, Observer, RoundRow, SiteRow

Array = NDArray[np.float64]
Rows = tuple[Array, Array]

SITES = {
    "other": (5493, 0.25),
    "SVI": (2394, 0.30),
    "SVHC": (956, 0.12),
    "STMW": (255, 0.35),
    "SVHD": (71, 0.52),
}
FEATURES = 24
BYTES = 4 * (FEATURES + 1)


def scenario(directory: Path, name: str = "medical-thyroid", rounds: int = 12) -> Scenario:
    return Scenario.model_validate(
        {
            "name": name,
            "description": "Thyroid disease by referral source.",
            "data": {"source": "thyroid", "label": "target"},
            "model": {"name": "logistic"},
            "training": {"rounds": rounds, "metrics": ("auc", "accuracy", "loss")},
            "output": {"directory": str(directory), "compare": True, "bootstrap": 60},
        }
    )


def make_sites(seed: int = 7, sites: dict[str, tuple[int, float]] | None = None) -> dict[str, Rows]:
    """Draw rows: two classes whose means differ in 8 of the features, with a shift of each site."""
    draw = np.random.default_rng(seed)
    direction = np.zeros(FEATURES)
    direction[:8] = draw.uniform(0.25, 0.6, 8)
    found = {}
    for name, (rows, positive) in (sites or SITES).items():
        labels = (draw.random(rows) < positive).astype(float)
        shift = draw.normal(0, 0.25, FEATURES)
        inputs = draw.normal(0, 1, (rows, FEATURES)) + labels[:, None] * direction + shift
        found[name] = (np.hstack([inputs, np.ones((rows, 1))]), labels)
    return found


def predict(weights: Array, inputs: Array) -> Array:
    return 1 / (1 + np.exp(-inputs @ weights))


def train(weights: Array, rows: Rows, steps: int, rate: float = 0.6) -> Array:
    inputs, labels = rows
    for _ in range(steps):
        weights = weights - rate * inputs.T @ (predict(weights, inputs) - labels) / len(labels)
    return weights


def measure(labels: Array, scores: Array) -> dict[str, float]:
    """AUC by ranks (Mann-Whitney), accuracy at one half, mean binary cross-entropy."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    auc = math.nan
    if positives and negatives:
        ranks = np.empty(len(scores))
        ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
        auc = float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))
    safe = np.clip(scores, 1e-7, 1 - 1e-7)
    loss = float(-np.mean(labels * np.log(safe) + (1 - labels) * np.log(1 - safe)))
    return {"auc": auc, "accuracy": float(((scores >= 0.5) == labels).mean()), "loss": loss}


def intervals(labels: Array, scores: Array, resamples: int = 60) -> dict[str, Interval]:
    draw = np.random.default_rng(0)
    values = measure(labels, scores)
    drawn = [measure(labels[i], scores[i]) for i in draw.integers(0, len(labels), (resamples, len(labels)))]
    found = {}
    for name, value in values.items():
        column = np.array([one[name] for one in drawn])
        column = column[np.isfinite(column)]
        low, high = np.quantile(column, [0.025, 0.975]) if column.size else (math.nan, math.nan)
        found[name] = Interval(value, float(low), float(high))
    return found


def split(rows: Rows) -> tuple[Rows, Rows, Rows]:
    """Cut rows 60 / 20 / 20 into train, validation and test."""
    inputs, labels = rows
    cuts = (int(len(labels) * 0.6), int(len(labels) * 0.8))
    parts = list(zip(np.split(inputs, cuts), np.split(labels, cuts), strict=True))
    return parts[0], parts[1], parts[2]


def tell_rounds(
    observer: Observer, sites: dict[str, Rows], rounds: int, failing: str = "", steps: int = 3
) -> Array:
    """Train federatedly and tell each round; a site named `failing` gives no answer in round 3."""
    observer.on_message(f"statistics from {len(sites)} clients")
    parts = {name: split(rows) for name, rows in sites.items()}
    weights, best_auc, best_weights = np.zeros(FEATURES + 1), -1.0, np.zeros(FEATURES + 1)
    for number in range(rounds + 1):
        clients: list[ClientRow] = []
        losses: list[float] = []
        updates: list[tuple[int, Array]] = []
        for client, (name, (trained, _, _)) in enumerate(parts.items()):
            size = len(trained[1])
            if number and name == failing and number == 3:
                error = "WorkerError: the worker process died twice"
                clients.append(ClientRow(number, client, name, "train", size, 0.0, 0, BYTES, {}, error))
            elif number:
                update = train(weights, trained, steps)
                loss = measure(trained[1], predict(update, trained[0]))["loss"]
                updates.append((size, update))
                losses.append(loss * size)
                clients.append(
                    ClientRow(number, client, name, "train", size, size * 2e-5, BYTES, BYTES, {"loss": loss})
                )
        examples = sum(size for size, _ in updates)
        if updates:
            weights = sum((size * update for size, update in updates), np.zeros_like(weights)) / examples
        metrics = _evaluate(weights, parts, number, clients)
        best = metrics["auc"] > best_auc
        if best:
            best_auc, best_weights = metrics["auc"], weights
        seconds = 0.12 + 2e-5 * examples + (1.4 if number == 1 else 0)
        phases = {"train": 0.6 * seconds, "aggregate": 0.05 * seconds, "evaluate": 0.3 * seconds}
        phases["other"] = seconds - sum(phases.values())
        observer.on_round(
            RoundRow(
                number,
                len(parts) if number else 0,
                len(updates),
                examples,
                0.6,
                sum(losses) / examples if examples else math.nan,
                metrics,
                best,
                sum(row.bytes_up for row in clients),
                sum(row.bytes_down for row in clients),
                seconds,
                phases,
            ),
            clients,
        )
    return best_weights


def _evaluate(
    weights: Array, parts: dict[str, tuple[Rows, Rows, Rows]], number: int, clients: list[ClientRow]
) -> dict[str, float]:
    total: dict[str, float] = {}
    rows = 0
    for client, (name, (_, (inputs, labels), _)) in enumerate(parts.items()):
        found = {k: v for k, v in measure(labels, predict(weights, inputs)).items() if math.isfinite(v)}
        clients.append(ClientRow(number, client, name, "evaluate", len(labels), 0.01, 48, BYTES, found))
        rows += len(labels)
        for key, value in found.items():
            total[key] = total.get(key, 0.0) + value * len(labels)
    return {key: value / rows for key, value in total.items()}


def final_test(weights: Array, sites: dict[str, Rows], steps: int, *, compare: bool = True) -> list[SiteRow]:
    """Test the federated model, and ones trained alone and on pooled rows with as many steps."""
    parts = {name: split(rows) for name, rows in sites.items()}
    pooled = tuple(np.concatenate([part[0][i] for part in parts.values()]) for i in (0, 1))
    nothing = np.zeros(FEATURES + 1)
    central = train(nothing, (pooled[0], pooled[1]), steps)
    found = []
    for client, (name, (trained, _, (inputs, labels))) in enumerate(parts.items()):
        models = {"local": train(nothing, trained, steps), "federated": weights, "centralised": central}
        if not compare:
            models = {"federated": weights}
        tests = {model: intervals(labels, predict(w, inputs)) for model, w in models.items()}
        positives = int(labels.sum())
        found.append(
            SiteRow(client, name, len(trained[1]), len(labels), positives if positives >= 5 else -1, tests)  # type: ignore[arg-type]
        )
    return found


def overview(sites: dict[str, Rows], min_count: int = 5) -> dict[str, object]:
    def told(value: float) -> int | None:
        return int(value) if value >= min_count else None

    clients = [
        {
            "client": client,
            "name": name,
            "rows": len(labels),
            "train_rows": int(len(labels) * 0.6),
            "labels": {"healthy": told((1 - labels).sum()), "sick": told(labels.sum())},
        }
        for client, (name, (_, labels)) in enumerate(sites.items())
    ]
    # A share of the cells is blanked, and the rate told is that of the cells that are.
    blank = np.random.default_rng(5).random((sum(len(labels) for _, labels in sites.values()), 7))
    shares = {"TBG": 0.96, "T3": 0.28, "T4U": 0.09, "FTI": 0.09, "TSH": 0.09, "TT4": 0.05, "age": 0.0}
    pooled = np.concatenate([inputs for inputs, _ in sites.values()])
    columns: list[dict[str, object]] = [
        {
            "name": name,
            "kind": "numeric",
            "missing_rate": float((blank[:, i] < share).mean()),
            "mean": float(pooled[:, i].mean()),
            "std": float(pooled[:, i].std()),
            "categories": None,
        }
        for i, (name, share) in enumerate(shares.items())
    ]
    notes = ["WEST has 3 rows, fewer than partition.min_rows: left out."]
    return {"clients": clients, "columns": columns, "notes": notes}


def many_sites(count: int) -> dict[str, tuple[int, float]]:
    draw = np.random.default_rng(3)
    return {
        f"centre {i:03d}": (int(draw.integers(40, 240)), float(draw.uniform(0.2, 0.6))) for i in range(count)
    }
