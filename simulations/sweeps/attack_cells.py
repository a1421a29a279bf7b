"""The cells of an attack table: pairs of attack and defence, with the scenario of each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shoal.common.config import AttackConfig, Scenario, StrategyConfig
from shoal.common.errors import ConfigError
from shoal.simulations.attacks.adversary import malicious_clients
from shoal.simulations.attacks.catalog import ATTACKS, NONE

DEFAULT_ATTACKS: Final = ("label-flip", "sign-flip", "scaling", "backdoor", "min-max")
DEFAULT_DEFENCES: Final = (
    "FedMedian",
    "FedTrimmedAvg",
    "MultiKrum",
    "NormClippedMean",
    "GeometricMedian",
    "WeightedMedian",
    "FLTrust",
)
NO_DEFENCE: Final = "FedAvg"
_CHOICE = re.compile(r"([\w.:-]+)\s*(?:\((.*)\))?", re.S)


@dataclass(frozen=True, slots=True)
class Choice:
    """An attack or a defence by name, with its arguments."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name with the given arguments, as shown in a table."""
        shown = ", ".join(f"{key}={value}" for key, value in self.args.items())
        return f"{self.name}({shown})" if shown else self.name


@dataclass(frozen=True, slots=True)
class AttackCell:
    """One run of the table: attack, defence and scenario."""

    attack: Choice
    defence: Choice
    scenario: Scenario


def parse(text: str) -> list[Choice]:
    """Read "sign-flip,backdoor(target=7, factor=5)": names with arguments in parentheses, in TOML syntax.

    Raises:
        ConfigError: a part is not a name, or its arguments are not valid TOML.
    """
    found = []
    for part in re.split(r",(?![^(]*\))", text):
        match = _CHOICE.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f'expected a name or name(argument=value, …), got "{part.strip()}"')
        try:
            args = tomllib.loads(f"args = {{{match[2] or ''}}}")["args"]
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f'"{part.strip()}": the arguments cannot be read: {error}') from error
        found.append(Choice(match[1], args))
    return found


def make_cells(
    scenario: Scenario, clients: int, attacks: Sequence[Choice], defences: Sequence[Choice]
) -> list[AttackCell]:
    """Return a cell for each pair, row by row; "no attack" and "no defence" are always included, first.

    Args:
        scenario: its attack and strategy are replaced; everything else stays, also attack.fraction.
        clients: in the federation.
        attacks, defences: to try; arguments about the attackers that a defence needs are filled in if unset.
    """
    rows = [Choice(NONE), *(choice for choice in attacks if choice.name != NONE)]
    columns = [Choice(NO_DEFENCE), *(choice for choice in defences if choice.label != NO_DEFENCE)]
    strategies = [_strategy(choice, scenario, clients) for choice in columns]
    return [
        AttackCell(attack, defence, _scenario(scenario, attack, strategy))
        for attack in rows
        for defence, strategy in zip(columns, strategies, strict=True)
    ]


def default_attacks(scenario: Scenario) -> list[Choice]:
    """Return the default attacks: those that the task supports."""
    regression = scenario.data.task == "regression"
    return [Choice(name) for name in DEFAULT_ATTACKS if not (regression and ATTACKS[name].classes)]


def default_defences(scenario: Scenario) -> list[Choice]:
    """Return the default defences: those that the cohort allows."""
    drawn = scenario.strategy.clients_per_round or scenario.strategy.sampling == "poisson"
    return [Choice(name) for name in DEFAULT_DEFENCES if not (drawn and name == "FLTrust")]


def attackers(scenario: Scenario, clients: int) -> frozenset[int]:
    """Return the indices of the malicious clients, in every row except the first."""
    return malicious_clients(scenario.seed, clients, scenario.attack.fraction)


def _scenario(scenario: Scenario, attack: Choice, strategy: StrategyConfig) -> Scenario:
    """Return the scenario of a cell: without baselines, and with a checkpoint for the last model."""
    name = f"{attack.name}-{strategy.name}".replace(":", ".")
    output = {"compare": False, "checkpoint_every": scenario.output.checkpoint_every or 1}
    given = {"kind": attack.name, "args": dict(attack.args), "fraction": scenario.attack.fraction}
    changed: dict[str, Any] = {
        "name": name,
        "attack": AttackConfig(**given),
        "strategy": strategy,
        "output": scenario.output.model_copy(update=output),
    }
    return scenario.model_copy(update=changed)


def _strategy(choice: Choice, scenario: Scenario, clients: int) -> StrategyConfig:
    """Return a defence that knows what it needs about the attackers: the best case for it."""
    malicious = attackers(scenario, clients)
    cohort = min(clients, scenario.strategy.clients_per_round or clients)
    count = max(1, round(len(malicious) * cohort / clients))
    known: Mapping[str, Mapping[str, Any]] = {
        "Krum": {"num_malicious_nodes": count},
        "MultiKrum": {"num_malicious_nodes": count, "num_nodes_to_select": max(1, cohort - count - 2)},
        "Bulyan": {"num_malicious_nodes": count},
        # half a client more, so that rounding cannot keep one of them
        "FedTrimmedAvg": {"beta": min(0.49, round((count + 0.5) / cohort, 3))},
        "FLTrust": {"trusted": next(c for c in range(clients) if c not in malicious)},
    }
    args = {**known.get(choice.name, {}), **choice.args}
    return scenario.strategy.model_copy(update={"name": choice.name, "args": args})
