"""What `[privacy]` does not go with, found before a run: each would break the promise or waste its noise."""

from __future__ import annotations

from common.config import Scenario
from server.strategies import needs_every_update
from server.strategies.catalog import STRATEGIES, is_users_own


def privacy_problems(scenario: Scenario) -> list[str]:
    """Return one line for each problem of `[privacy]` with the other sections."""
    if scenario.privacy.unit == "none":
        return _unused(scenario)
    problems = [*_noise_problems(scenario), *_update_problems(scenario), *_choice_problems(scenario)]
    if scenario.privacy.unit == "client":
        problems += _central_problems(scenario)
    return problems


def _unused(scenario: Scenario) -> list[str]:
    """Find keys that would look like a promise."""
    privacy = scenario.privacy
    given = [name for name in ("epsilon", "noise_multiplier") if getattr(privacy, name) is not None]
    return [
        f'privacy.{name} = {getattr(privacy, name):g} does nothing while privacy.unit is "none": set it to '
        f'"client", "local" or "record"'
        for name in given
    ]


def _noise_problems(scenario: Scenario) -> list[str]:
    privacy = scenario.privacy
    problems = []
    if privacy.epsilon is None and privacy.noise_multiplier is None:
        problems.append(
            f'privacy.unit = "{privacy.unit}" needs epsilon, from which the noise is solved, or '
            "noise_multiplier"
        )
    share, budget = privacy.statistics_epsilon, privacy.epsilon
    if share is not None and budget is not None and share >= budget:
        problems.append(
            f"privacy.statistics_epsilon = {share:g} leaves nothing of privacy.epsilon = {budget:g} for "
            "training: lower it"
        )
    if privacy.clipping == "adaptive" and privacy.unit != "client":
        problems.append(f'privacy.clipping = "adaptive" is for unit "client", not "{privacy.unit}"')
    if privacy.weights == "bounded" and privacy.unit != "client":
        problems.append(f'privacy.weights = "bounded" is for unit "client", not "{privacy.unit}"')
    return problems


def _update_problems(scenario: Scenario) -> list[str]:
    """Find steps of `[update]` that the unit does itself, or that would undo it."""
    privacy, update = scenario.privacy, scenario.update
    problems = []
    if privacy.unit in ("client", "local"):
        for name, value in (("clip_norm", update.clip_norm), ("noise_stddev", update.noise_stddev)):
            if value:
                problems.append(
                    f'update.{name} = {value:g}: privacy.unit = "{privacy.unit}" does this itself: '
                    "drop the key"
                )
    if privacy.unit == "client" and update.compress != "none":
        problems.append(
            f'update.compress = "{update.compress}": rounding after clipping can make an update larger than '
            'clip_norm, which privacy.unit = "client" counts on: set it to "none"'
        )
    return problems


def _choice_problems(scenario: Scenario) -> list[str]:
    """Find choices that would be made by looking at protected rows."""
    patience = scenario.training.early_stopping.patience
    if not patience:
        return []
    return [
        f"training.early_stopping.patience = {patience}: when to stop would be read off rows that the "
        "privacy budget does not cover: set it to 0"
    ]


def _central_problems(scenario: Scenario) -> list[str]:
    privacy, strategy = scenario.privacy, scenario.strategy
    problems = []
    if is_users_own(strategy.name) or (strategy.name in STRATEGIES and needs_every_update(strategy)):
        problems.append(
            f'strategy.name: {strategy.name} looks at single updates; privacy.unit = "client" gives it their '
            "noisy mean only: use FedAvg, FedAvgM, FedProx, FedAdam, FedYogi or FedAdagrad"
        )
    if privacy.accountant == "pld" and strategy.sampling == "fixed" and strategy.clients_per_round:
        problems.append(
            'privacy.accountant = "pld" has no bound for samples of a fixed size: use "rdp", or '
            'strategy.sampling = "poisson"'
        )
    return problems
