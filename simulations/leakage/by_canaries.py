"""Trains the scenario again with canaries, and bounds epsilon from below by guessing which were included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime
from shoal.common.config import Scenario
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.schema import Shard
from shoal.common.seeds import generator, integer_seed
from shoal.simulations.leakage import canary, lira
from shoal.simulations.leakage.bounds import best_bound
from shoal.simulations.leakage.canary import Canary
from shoal.simulations.leakage.populations import Enlarged, TargetBatches, join
from shoal.simulations.leakage.rerun import again, train_again
from shoal.simulations.leakage.target import Released, Target, outputs

CONFIDENCE: Final = 0.95
_DRAW, _COINS, _TRAINING = 1, 2, 3  # parts of the audit's random numbers


def bound(target: Target, count: int, seed: int, say: Callable[[str], None]) -> Mapping[str, Any]:
    """Return a lower bound on the epsilon that the run could guarantee.

    Args:
        target: the run; count: number of canaries, 0 for the default.
        seed: of canaries, coins and training; say: called with progress messages.
    """
    if target.population.schema.task == "regression":
        return {"skipped": "canaries are rows with a wrong class, but the task is regression"}
    canaries = _canaries(target, count, seed)
    coins = canary.toss(len(canaries), generator(seed, "audit", dispatch=_COINS))
    unit = "client" if canaries[0].client is None else "row"
    say(f"canary: training with {int(coins.sum())} of {len(canaries)} canary {unit}s")
    scenario = again(target.scenario, integer_seed(seed, "audit", dispatch=_TRAINING))
    if unit == "client":
        scenario = _without_quorum(scenario)
    trained = train_again(scenario, _with(target, canaries, coins), last=True)
    scores = canary.scores(_log_odds(target, trained, canaries), _log_odds(target, target.released, canaries))
    delta = target.scenario.privacy.delta
    found = best_bound(scores, coins, delta, CONFIDENCE)
    return {
        "unit": unit,
        "canaries": len(canaries),
        "included": int(coins.sum()),
        "guesses": found.guesses,
        "correct": found.correct,
        "epsilon_at_least": found.epsilon,
        "most": best_bound(np.where(coins, 1.0, 0.0), coins, delta, CONFIDENCE).epsilon,
        "delta": delta,
        "confidence": CONFIDENCE,
    }


def _canaries(target: Target, count: int, seed: int) -> Sequence[Canary]:
    classes = target.population.schema.num_classes
    rng = generator(seed, "audit", dispatch=_DRAW)
    held_out = {c: target.population.shard(c).take(target.splits(c)["test"]) for c in target.clients}
    if _adds_clients(target):
        return canary.canary_clients(join(list(held_out.values())), classes, count, rng)
    rows = sum(len(target.splits(c)["train"]) for c in target.clients)
    return canary.canary_rows(held_out, rows, classes, count, rng)


def _adds_clients(target: Target) -> bool:
    """Whether the guarantee covers adding or removing a whole client.

    The coin of a canary must decide between two data sets that are neighbours in the guarantee. If it covers
    replacing a client's rows (docs/privacy.md: unit "local", or cohorts of fixed size), adding a row to one
    client gives such neighbours.
    """
    scenario, clients = target.scenario, len(target.population)
    by_chance = scenario.strategy.sampling == "poisson"
    everyone = not 0 < scenario.strategy.clients_per_round < clients
    return mechanism_of(scenario.privacy).server_noise and (everyone or by_chance)


def _without_quorum(scenario: Scenario) -> Scenario:
    """Allow rounds in which half of the canary clients are missing.

    Masks are switched off: they would need all clients, and hide single updates, not the audited sum.
    """
    server = scenario.server.model_copy(update={"min_success": 1e-9})
    secure = scenario.secure.model_copy(update={"aggregation": False})
    return scenario.model_copy(update={"server": server, "secure": secure})


def _with(target: Target, canaries: Sequence[Canary], coins: NDArray[np.bool_]) -> Enlarged:
    """Return the clients and the canaries that are in.

    A canary client that is not included is counted but never replies: without it, the number of clients would
    change, by which the server divides, and which the guarantee treats as known.
    """
    added: dict[int, list[Shard]] = {}
    clients: list[Shard | None] = []
    for one, included in zip(canaries, coins, strict=True):
        if one.client is None:
            clients.append(one.shard if included else None)
        elif included:
            added.setdefault(one.client, []).append(one.shard)
    return Enlarged(
        target.population,
        target.scenario.data,
        target.scenario.seed,
        {client: join(shards) for client, shards in added.items()},
        clients,
    )


def _log_odds(
    target: Target, released: Released, canaries: Sequence[Canary]
) -> Sequence[NDArray[np.float64]]:
    """Return the log-odds of the rows of each canary."""
    rows = join([one.shard for one in canaries])
    runtime = ClientRuntime(target.scenario, TargetBatches(target.population.schema, [rows]))
    found = lira.log_odds(*outputs(runtime, released, 0))
    return np.split(found, np.cumsum([one.shard.rows for one in canaries])[:-1])
