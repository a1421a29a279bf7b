"""Runs attacks against a finished run and writes the results into its folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from shoal.common import errors
from shoal.common.errors import RunError
from shoal.common.seeds import integer_seed
from shoal.simulations.leakage import by_canaries, by_inversion, by_membership
from shoal.simulations.leakage.target import Target, open_target
from shoal.simulations.report import write_report
from shoal.simulations.results import RunFolder

Attack = Literal["membership", "lira", "inversion", "canary"]


@dataclass(frozen=True, slots=True)
class Effort:
    """The effort of an audit.

    Attributes:
        shadows: models trained for LiRA, at least 2; canaries: inserted into training, 0 for the default.
        say: called with progress messages of long work.
    """

    shadows: int = 16
    canaries: int = 0
    say: Callable[[str], None] = lambda text: None


Found = Mapping[str, Any]
_ATTACKS: Final[Mapping[Attack, Callable[[Target, Effort, int], Found]]] = {
    "membership": lambda target, effort, seed: by_membership.by_loss(target, seed),
    "lira": lambda target, effort, seed: by_membership.by_shadows(target, effort.shadows, seed, effort.say),
    "inversion": lambda target, effort, seed: by_inversion.invert(target, seed, effort.say),
    "canary": lambda target, effort, seed: by_canaries.bound(target, effort.canaries, seed, effort.say),
}
ATTACKS: Final[tuple[Attack, ...]] = tuple(_ATTACKS)


def measure_leakage(
    run: RunFolder,
    attacks: Sequence[str] = ATTACKS,
    clients: Sequence[str] = (),
    seed: int | None = None,
    effort: Effort | None = None,
) -> dict[str, Any]:
    """Attack a run, write leakage.json and the report, and return the content of leakage.json.

    The same seed gives the same numbers. Results of an earlier audit are replaced.

    Args:
        run: a finished run of a simulation; attacks: names of `ATTACKS`.
        clients: names of clients whose rows are attacked; empty for all.
        seed: of all draws of the audit; `None` means the run's seed.
        effort: of the audit; `None` for the default.

    Raises:
        RunError: an attack or client is unknown, or the run cannot be attacked, with the reason.
    """
    effort = effort or Effort()
    chosen = [_known(name) for name in attacks]
    if effort.shadows < 2 and "lira" in chosen:
        raise RunError(f"LiRA needs at least 2 shadow models, got {effort.shadows}")
    found: dict[str, Any] = {}
    with _quiet():
        target = open_target(run, clients, seed)
        for name in (name for name in ATTACKS if name in chosen):
            effort.say(f"{name}: {len(target.clients)} client{'s' if len(target.clients) != 1 else ''}")
            # each attack has its own draws, independent of which others run
            own = integer_seed(target.seed, "audit", dispatch=1 + ATTACKS.index(name))
            found[name] = _ATTACKS[name](target, effort, own)
    content = {
        "seed": target.seed,
        "clients": [target.population.name(client) for client in target.clients],
        "promised": guarantee(target),
        "attacks": found,
    }
    run.write_leakage(content)
    write_report(run)
    return run.leakage()


def guarantee(target: Target) -> dict[str, Any]:
    """Return the guarantee of the run: unit, epsilon and delta; `None` for both without a guarantee."""
    privacy = target.run.summary().get("privacy")
    epsilon = privacy.get("epsilon") if isinstance(privacy, Mapping) else None
    unit = target.scenario.privacy.unit
    return {
        "unit": unit,
        "epsilon": epsilon,
        "delta": None if unit == "none" else target.scenario.privacy.delta,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Flower's log of each round and TensorFlow's log of each new model."""
    loggers = [logging.getLogger(name) for name in ("flwr", "tensorflow")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _known(name: str) -> Attack:
    for attack in ATTACKS:
        if name == attack:
            return attack
    raise RunError(errors.unknown_name("attack", name, ATTACKS))
