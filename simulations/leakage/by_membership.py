"""Runs the two membership attacks: which rows of a client's shard did the model train on?

Members are the training rows of the run's clients; the others are their test rows, from the same
distribution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime
from shoal.clients.shard import split_indices
from shoal.common.seeds import generator, integer_seed
from shoal.simulations.leakage import lira
from shoal.simulations.leakage.membership import losses
from shoal.simulations.leakage.rerun import again, train_again
from shoal.simulations.leakage.roc import curve, separation, thinned
from shoal.simulations.leakage.target import Released, Target, outputs
from shoal.simulations.results.text import duration

RESAMPLES: Final = 200  # of the bootstrap of an AUC

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the rows of one client: training rows, and held-out rows."""

    client: int
    members: NDArray[np.float64]
    others: NDArray[np.float64]


def by_loss(target: Target, seed: int) -> Found:
    """Attack by the loss of the model on each row: a lower loss means "member"."""
    runtime = ClientRuntime(target.scenario, target.population)
    task = target.population.schema.task
    scored = []
    for client in target.clients:
        found = -losses(task, *outputs(runtime, target.released, client))
        splits = target.splits(client)
        scored.append(Scored(client, found[splits["train"]], found[splits["test"]]))
    return _summary(target, scored, seed)


def by_shadows(target: Target, shadows: int, seed: int, say: Callable[[str], None]) -> Found:
    """Attack by likelihood ratio with shadow models.

    A shadow model is a complete run of the same scenario on the same clients, with a different seed for the
    splits, the initial weights and everything else. So it is trained like the target, including protection,
    on equally many rows, and the fraction of models that did not see a row is about that of held-out rows.
    """
    if target.population.schema.task == "regression":
        return {"skipped": "it compares the confidence of a class, but the task is regression"}
    ours = _log_odds(target, ClientRuntime(target.scenario, target.population), target.released)
    theirs, inside = [], []
    started = time.monotonic()
    for number in range(shadows):
        scenario = again(target.scenario, integer_seed(seed, "audit", dispatch=1 + number))
        released = train_again(scenario, target.population)
        theirs.append(_log_odds(target, ClientRuntime(scenario, target.population), released))
        inside.append([_trained_on(target, scenario.seed, client) for client in target.clients])
        left = (time.monotonic() - started) / (number + 1) * (shadows - number - 1)
        say(f"lira: shadow model {number + 1} of {shadows}, about {duration(left)} left")
    found: dict[str, Any] = {"shadows": shadows}
    unscored = 0
    scored: dict[str, list[Scored]] = {"online": [], "offline": []}
    for k, client in enumerate(target.clients):
        seen = np.stack([one[k] for one in inside])
        usable = lira.scorable(seen)
        splits = target.splits(client)
        train, test = (splits[name][usable[splits[name]]] for name in ("train", "test"))
        unscored += len(splits["train"]) + len(splits["test"]) - len(train) - len(test)
        for name, score in (("online", lira.online), ("offline", lira.offline)):
            values = np.full(len(usable), np.nan)
            others = np.stack([one[k] for one in theirs])
            values[usable] = score(ours[k][usable], others[:, usable], seen[:, usable])
            scored[name].append(Scored(client, values[train], values[test]))
    return {**found, "unscored": unscored, **{n: _summary(target, s, seed) for n, s in scored.items()}}


def _log_odds(target: Target, runtime: ClientRuntime, released: Released) -> list[NDArray[np.float64]]:
    return [lira.log_odds(*outputs(runtime, released, client)) for client in target.clients]


def _trained_on(target: Target, seed: int, client: int) -> NDArray[np.bool_]:
    labels = target.population.shard(client).labels
    seen = np.zeros(len(labels), np.bool_)
    seen[split_indices(labels, target.scenario.data, seed, client)["train"]] = True
    return seen


def _summary(target: Target, scored: Sequence[Scored], seed: int) -> Found:
    """Return the results over all clients, and by client if it has enough rows."""
    members, others = (
        np.concatenate([getattr(one, side) for one in scored]) for side in ("members", "others")
    )
    if not len(members) or not len(others):
        return {"skipped": "no row can be scored: more shadow models are needed"}
    least = target.scenario.preprocessing.min_count
    enough = [one for one in scored if min(len(one.members), len(one.others)) >= least]
    return {
        "overall": separation(members, others, generator(seed, "audit"), RESAMPLES),
        "clients": {
            target.population.name(one.client): separation(
                one.members, one.others, generator(seed, "audit", client=one.client), RESAMPLES
            )
            for one in enough
        },
        "too_few": len(scored) - len(enough),
        "roc": thinned(curve(members, others)),
    }
