"""Checks of `[privacy]` and `[secure]`: combinations that would break the guarantee or waste noise."""

from __future__ import annotations

from shoal.common.config import Scenario, StrategyConfig
from shoal.common.errors import ConfigError
from shoal.common.plugins import is_users_own
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.server.strategies.catalog import STRATEGIES, needs_every_update


def privacy_problems(scenario: Scenario) -> list[str]:
    """Return one line for each conflict of `[privacy]` with another section."""
    mechanism = mechanism_of(scenario.privacy)
    if not mechanism.guarantees:
        return _unused(scenario)
    problems = [*_noise_problems(scenario), *_update_problems(scenario), *_choice_problems(scenario)]
    if mechanism.server_noise:
        problems += _central_problems(scenario)
    if mechanism.per_row:
        problems += _record_problems(scenario)
    return problems


def _unused(scenario: Scenario) -> list[str]:
    """Find keys that suggest a guarantee although `privacy.unit` is "none"."""
    privacy = scenario.privacy
    names = ("epsilon", "noise_multiplier", "statistics_epsilon")
    given = [name for name in names if getattr(privacy, name) is not None]
    return [
        f'privacy.{name} = {getattr(privacy, name):g} has no effect while privacy.unit is "none": set unit '
        f'to "client", "local" or "record"'
        for name in given
    ]


def _noise_problems(scenario: Scenario) -> list[str]:
    privacy = scenario.privacy
    problems = []
    if privacy.epsilon is None and privacy.noise_multiplier is None:
        problems.append(
            f'privacy.unit = "{privacy.unit}" needs privacy.epsilon, from which the noise is calculated, or '
            "privacy.noise_multiplier"
        )
    share, budget = privacy.statistics_epsilon, privacy.epsilon
    if share is not None and budget is not None and share >= budget:
        problems.append(
            f"privacy.statistics_epsilon = {share:g} leaves nothing of privacy.epsilon = {budget:g} for "
            "training: set it below privacy.epsilon"
        )
    if privacy.clipping == "adaptive" and not mechanism_of(privacy).server_noise:
        problems.append(f'privacy.clipping = "adaptive" needs privacy.unit = "client", not "{privacy.unit}"')
    if privacy.weights == "bounded" and not mechanism_of(privacy).server_noise:
        problems.append(f'privacy.weights = "bounded" needs privacy.unit = "client", not "{privacy.unit}"')
    return problems


def _update_problems(scenario: Scenario) -> list[str]:
    """Find steps of `[update]` that repeat or undo what the privacy unit does."""
    privacy, update = scenario.privacy, scenario.update
    problems = []
    if mechanism_of(privacy).whole_clients:
        for name, value in (("clip_norm", update.clip_norm), ("noise_stddev", update.noise_stddev)):
            if value:
                problems.append(
                    f'update.{name} = {value:g}: privacy.unit = "{privacy.unit}" already does this: '
                    "remove the key"
                )
    if mechanism_of(privacy).server_noise and update.compress != "none":
        problems.append(
            f'update.compress = "{update.compress}": it acts after clipping, so an update can be larger than '
            'privacy.clip_norm, and the guarantee relies on that limit: set it to "none"'
        )
    return problems


def _choice_problems(scenario: Scenario) -> list[str]:
    """Find decisions that would be based on protected rows."""
    patience = scenario.training.early_stopping.patience
    if not patience:
        return []
    return [
        f"training.early_stopping.patience = {patience}: the decision to stop would use validation rows, "
        "which the privacy budget does not cover: set it to 0"
    ]


def _central_problems(scenario: Scenario) -> list[str]:
    privacy, strategy = scenario.privacy, scenario.strategy
    problems = []
    if _looks_at_single_updates(strategy):
        problems.append(
            f"strategy.name: {strategy.name} needs the update of each client, but with "
            f'privacy.unit = "client" it gets their noisy mean only; use one of {_mean_strategies()}'
        )
    if privacy.accountant == "pld" and strategy.sampling == "fixed" and strategy.clients_per_round:
        problems.append(
            'privacy.accountant = "pld" has no bound for samples of fixed size: use "rdp", or '
            'strategy.sampling = "poisson"'
        )
    return problems


def _record_problems(scenario: Scenario) -> list[str]:
    """Check what DP-SGD at the clients needs."""
    problems = []
    if scenario.resources.execution_mode == "stacked":
        problems.append(
            'resources.execution_mode: "stacked" is not supported with privacy.unit = "record", which would '
            'need the gradient of each row of all clients in a stack: set it to "auto" or "sequential"'
        )
    if scenario.model.precision != "float32":
        problems.append(
            f'model.precision: with "{scenario.model.precision}" the gradient of a row may overflow '
            'before privacy.unit = "record" clips it: set it to "float32"'
        )
    if scenario.strategy.name == "QFedAvg":
        problems.append(
            "strategy.name: QFedAvg weights clients by their training loss, which a client does not send "
            'with privacy.unit = "record": use another strategy'
        )
    return problems


def secure_problems(scenario: Scenario) -> list[str]:
    """Return one line for each conflict of secure aggregation with another section."""
    if not scenario.secure.aggregation:
        return []
    name, problems = scenario.strategy.name, []
    if is_users_own(name):
        problems.append(
            f"strategy.name: {name} is your own strategy and may need the update of each client, which "
            f"secure.aggregation hides: use one of {_mean_strategies()}"
        )
    elif _looks_at_single_updates(scenario.strategy):
        problems.append(
            f"strategy.name: {name} needs the update of each client, which secure.aggregation hides; use one "
            f"of {_mean_strategies()}"
        )
    if scenario.update.compress != "none":
        problems.append(
            f'update.compress = "{scenario.update.compress}": a masked update takes 4 bytes per value and '
            'cannot be compressed: set it to "none"'
        )
    if scenario.server.round_retries:
        problems.append(
            f"server.round_retries = {scenario.server.round_retries}: a client sends one masked update per "
            "round and cannot be asked again (secure.max_dropout covers losses): set it to 0"
        )
    if mechanism_of(scenario.privacy).norms_apart == 2:
        problems.append(
            'privacy.unit = "local" with secure.aggregation adds far more noise than needed, because the '
            'server sees only sums: use privacy.unit = "client"'
        )
    if scenario.resources.execution_mode == "stacked":
        problems.append(
            'resources.execution_mode: "stacked" is not supported with secure.aggregation, because each '
            'client masks its own update: set it to "auto" or "sequential"'
        )
    if scenario.strategy.sampling == "poisson":
        problems.append(
            'strategy.sampling = "poisson" can draw a cohort that is too small to hide a client in a sum: '
            'use "fixed"'
        )
    if scenario.model.aggregate_statistics == "local":
        problems.append(
            'model.aggregate_statistics = "local" is not supported with secure.aggregation: set it to "mean"'
        )
    size = scenario.strategy.clients_per_round or scenario.partition.clients
    return problems if size is None else [*problems, *secure_cohort_problems(scenario, size)]


def _looks_at_single_updates(strategy: StrategyConfig) -> bool:
    """Whether a strategy may look at single updates; unknown names are reported elsewhere."""
    return (is_users_own(strategy.name) or strategy.name in STRATEGIES) and needs_every_update(strategy)


def _mean_strategies() -> str:
    """List the strategies that need only the mean of the updates."""
    return ", ".join(name for name, entry in STRATEGIES.items() if not entry.needs_every_update)


def secure_cohort_problems(scenario: Scenario, clients: int) -> list[str]:
    """Return a problem if a round has too few clients to hide each one in a sum."""
    from shoal.common.secure.graph import choose

    if scenario.secure.aggregation:
        try:
            choose(clients, scenario.secure.max_dropout, scenario.secure.max_colluding)
        except ConfigError as error:
            return [f"secure.aggregation: {line}" for line in error.problems]
    return []
