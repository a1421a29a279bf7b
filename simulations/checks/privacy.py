"""What `[privacy]` does not go with, found before a run: each would break the promise or waste its noise."""

from __future__ import annotations

from shoal.common.config import Scenario, StrategyConfig
from shoal.common.errors import ConfigError
from shoal.common.plugins import is_users_own
from shoal.server.strategies.catalog import STRATEGIES, needs_every_update


def privacy_problems(scenario: Scenario) -> list[str]:
    """Return one line for each problem of `[privacy]` with the other sections."""
    if scenario.privacy.unit == "none":
        return _unused(scenario)
    problems = [*_noise_problems(scenario), *_update_problems(scenario), *_choice_problems(scenario)]
    if scenario.privacy.unit == "client":
        problems += _central_problems(scenario)
    if scenario.privacy.unit == "record":
        problems += _record_problems(scenario)
    return problems


def _unused(scenario: Scenario) -> list[str]:
    """Find keys that would look like a promise."""
    privacy = scenario.privacy
    names = ("epsilon", "noise_multiplier", "statistics_epsilon")
    given = [name for name in names if getattr(privacy, name) is not None]
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
    if _looks_at_single_updates(strategy):
        problems.append(
            f'strategy.name: {strategy.name} looks at single updates; privacy.unit = "client" gives it their '
            f"noisy mean only; these take it: {_means()}"
        )
    if privacy.accountant == "pld" and strategy.sampling == "fixed" and strategy.clients_per_round:
        problems.append(
            'privacy.accountant = "pld" has no bound for samples of a fixed size: use "rdp", or '
            'strategy.sampling = "poisson"'
        )
    return problems


def _record_problems(scenario: Scenario) -> list[str]:
    """Check what DP-SGD at the clients needs."""
    problems = []
    if scenario.resources.path == "stacked":
        problems.append(
            'resources.path: "stacked" is not to be had with privacy.unit = "record", which needs a gradient '
            'of each row, of all clients of a stack at once: set it to "auto"'
        )
    if scenario.model.precision != "float32":
        problems.append(
            f'model.precision: with "{scenario.model.precision}" a row\'s gradient may become infinite '
            'before privacy.unit = "record" clips it: set it to "float32"'
        )
    if scenario.strategy.name == "QFedAvg":
        problems.append(
            'strategy.name: QFedAvg weighs clients by their training loss, which privacy.unit = "record" '
            "does not let out: set another"
        )
    return problems


def secure_problems(scenario: Scenario) -> list[str]:
    """Say what does not go with sums of which the server sees no part."""
    if not scenario.secure.aggregation:
        return []
    name, problems = scenario.strategy.name, []
    if is_users_own(name):
        problems.append(
            f"strategy.name: {name} is your own and may look at single updates, of which secure.aggregation "
            "shows none: use a strategy of Flower that takes their mean, e.g. FedAvg"
        )
    elif _looks_at_single_updates(scenario.strategy):
        problems.append(
            f"strategy.name: {name} looks at single updates, of which secure.aggregation shows none; these "
            f"take their mean: {_means()}"
        )
    if scenario.update.compress != "none":
        problems.append(
            f'update.compress = "{scenario.update.compress}": a masked update has 4 bytes a number and '
            'cannot be made smaller: set it to "none"'
        )
    if scenario.server.round_retries:
        problems.append(
            f"server.round_retries = {scenario.server.round_retries}: a client gives one masked update in a "
            "round, and secure.max_dropout of them may be lost: set it to 0"
        )
    if scenario.privacy.unit == "local":
        problems.append(
            'privacy.unit = "local" has each client hide from the server alone, for far more noise: use '
            '"client" with secure.aggregation'
        )
    if scenario.resources.path == "stacked":
        problems.append(
            'resources.path = "stacked": each client masks its own update: set it to "auto" or "sequential"'
        )
    if scenario.strategy.sampling == "poisson":
        problems.append(
            'strategy.sampling = "poisson" can draw a cohort too small to hide anybody in a sum: use "fixed"'
        )
    size = scenario.strategy.clients_per_round or scenario.partition.clients
    return problems if size is None else [*problems, *secure_cohort_problems(scenario, size)]


def _looks_at_single_updates(strategy: StrategyConfig) -> bool:
    """Tell whether a strategy may; a name that is unknown is reported elsewhere."""
    return (is_users_own(strategy.name) or strategy.name in STRATEGIES) and needs_every_update(strategy)


def _means() -> str:
    """List the strategies that take the mean of updates only."""
    return ", ".join(name for name, entry in STRATEGIES.items() if not entry.needs_every_update)


def secure_cohort_problems(scenario: Scenario, clients: int) -> list[str]:
    """Say whether a round has too few clients for a sum that hides each."""
    from shoal.common.secure.graph import choose

    if scenario.secure.aggregation:
        try:
            choose(clients, scenario.secure.max_dropout, scenario.secure.max_colluding)
        except ConfigError as error:
            return [f"secure.aggregation: {line}" for line in error.problems]
    return []
