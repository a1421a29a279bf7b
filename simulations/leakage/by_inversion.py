"""Tries to reconstruct rows from single updates, and compares the result with guessing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime, Rows
from shoal.common.schema import InputSpec
from shoal.common.seeds import generator
from shoal.simulations.leakage.inversion import (
    Similarity,
    mean_similarity,
    read_off,
    similarity,
    span_of,
    token_overlap,
    tokens_moved,
)
from shoal.simulations.leakage.target import Target
from shoal.simulations.results.text import duration

SIZES: Final = (1, 4)  # rows in a batch
UPDATES: Final = 16  # attacked per size, over the clients in turn
UPDATES_OF_SEQUENCES: Final = 2  # differentiating the gradient of a recurrent layer is slow
STEPS: Final = 400  # of gradient matching
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Work:
    """The state shared by attacks on batches of one size.

    Attributes:
        target: the run; runtime: for its clients' encoded rows; spec: the shape of an encoded row.
        rng: draws batches, starts and guesses; say: called with progress messages.
    """

    target: Target
    runtime: ClientRuntime
    spec: InputSpec
    rng: np.random.Generator
    say: Callable[[str], None]

    @property
    def updates(self) -> int:
        return UPDATES_OF_SEQUENCES if self.spec.kind == "sequence" else UPDATES

    def train(self, client: int) -> Rows:
        return self.runtime.rows(client)["train"]


def invert(target: Target, seed: int, say: Callable[[str], None]) -> Found:
    """Attack updates of one step on one batch, sent as the run's clients would send them.

    Args:
        target: the run; seed: of batches, starts and guesses; say: called with progress messages.
    """
    if target.scenario.secure.aggregation:
        return {"skipped": "with secure aggregation nobody sees a single update"}
    runtime = ClientRuntime(target.scenario, target.population)
    runtime.use_preprocessing(target.released.spec_json)
    spec = runtime.encoder.spec.input_spec
    found = []
    for size in SIZES:
        work = _Work(target, runtime, spec, generator(seed, "audit", dispatch=size), say)
        fitting = [client for client in target.clients if len(work.train(client).y) > size]
        if fitting:
            say(f"inversion: {work.updates} updates of {size} row{'s' if size > 1 else ''}")
            found.append({"batch": size, "updates": work.updates, **_attack(work, fitting, size)})
    return {"sizes": found} if found else {"skipped": "no client has two training rows"}


def _attack(work: _Work, clients: Sequence[int], size: int) -> Found:
    from shoal.simulations.leakage.updates import (  # imports Keras
        Batch,
        Updates,
        first_dense,
        first_embedding,
    )

    batches = []
    for k in range(work.updates):
        client = clients[k % len(clients)]
        rows = work.rng.choice(len(work.train(client).y), size, replace=False)
        batches.append(Batch(client, rows))
    updates = Updates(work.target, batches, size)
    gradients = [updates.gradient(k) for k in range(work.updates)]
    chosen = [(batch.client, batch.rows) for batch in batches]
    if work.spec.kind == "tokens":
        place = first_embedding(updates.model)
        if place is None:
            return {"method": "none: the model has no embedding of tokens"}
        return _tokens(work, chosen, [g[place] for g in gradients])
    dense = first_dense(updates.model, work.spec)
    if size == 1 and dense is not None:
        kernel, bias = dense
        decay = _matcher(work, updates).weight_decay()
        guesses = [
            read_off(g[kernel] - decay[kernel], g[bias] - decay[bias]).reshape(1, *work.spec.shape)
            for g in gradients
        ]
        return {"method": "calculated from the first layer", **_compare(work, chosen, guesses)}
    spans = [None if dense is None else span_of(g[dense[0]], size) for g in gradients]
    found = _match(work, updates, chosen, gradients, spans)
    return {"method": "gradient matching", **_compare(work, chosen, found)}


def _matcher(work: _Work, updates: Any) -> Any:
    from shoal.simulations.leakage.matching import Matcher  # imports TensorFlow

    return Matcher(updates.at_start(), image=work.spec.kind == "image", steps=STEPS)


def _match(
    work: _Work,
    updates: Any,
    chosen: Sequence[tuple[int, NDArray[np.intp]]],
    gradients: Sequence[Sequence[NDArray[Any]]],
    spans: Sequence[NDArray[np.float32] | None],
) -> list[NDArray[Any]]:
    matcher = _matcher(work, updates)
    found = []
    started = time.monotonic()
    for done, ((client, rows), gradient, span) in enumerate(zip(chosen, gradients, spans, strict=True)):
        if done:
            left = (time.monotonic() - started) / done * (len(chosen) - done)
            work.say(f"inversion: {done} of {len(chosen)} updates matched, about {duration(left)} left")
        shape = (len(rows), *work.spec.shape)
        start = work.rng.random(shape) if work.spec.kind == "image" else work.rng.standard_normal(shape)
        labels = work.train(client).y[rows]
        found.append(matcher.reconstruct(gradient, labels, start.astype(np.float32), span)[0])
    return found


def _compare(
    work: _Work, chosen: Sequence[tuple[int, NDArray[np.intp]]], guesses: Sequence[NDArray[Any]]
) -> Found:
    """Return the similarity of the guesses to the rows, compared with other training rows of the client."""
    attack: list[Similarity] = []
    chance: list[Similarity] = []
    for (client, rows), guess in zip(chosen, guesses, strict=True):
        x = work.train(client).x
        others = work.rng.choice(np.setdiff1d(np.arange(len(x)), rows), len(rows))
        for found, guessed in ((attack, guess), (chance, x[others])):
            found.append(similarity(x[rows], guessed, rows, x, image=work.spec.kind == "image"))
    return {"attack": mean_similarity(attack), "guess": mean_similarity(chance)}


def _tokens(
    work: _Work, chosen: Sequence[tuple[int, NDArray[np.intp]]], embeddings: Sequence[NDArray[Any]]
) -> Found:
    attack, chance = [], []
    for (client, rows), embedding in zip(chosen, embeddings, strict=True):
        x = work.train(client).x
        others = work.rng.choice(np.setdiff1d(np.arange(len(x)), rows), len(rows))
        truth, guess = (_present(x[which], len(embedding)) for which in (rows, others))
        attack.append(token_overlap(truth, tokens_moved(embedding)))
        chance.append(token_overlap(truth, guess))
    scores = {"attack": float(np.mean(attack)), "guess": float(np.mean(chance))}
    return {"method": "tokens whose embedding changed", "tokens": scores}


def _present(x: NDArray[Any], tokens: int) -> NDArray[np.bool_]:
    present = np.zeros(tokens, np.bool_)
    present[np.unique(x)] = True
    return present
