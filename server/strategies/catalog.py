"""The strategies by name. Free of Flower, which takes a second to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shoal.common import arguments, errors
from shoal.common.arguments import Argument
from shoal.common.config import StrategyConfig
from shoal.common.plugins import is_users_own

FLOWER: Final = "flwr.serverapp.strategy"  # the module of the stock classes


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy that a scenario may name: a stock one of Flower, or one of ours.

    Attributes:
        summary: one line for lists and docs, with its paper.
        arguments: name → what a scenario may set, as in the signature of the class.
        needs_every_update: whether it looks at single updates, rather than at their weighted mean.
        min_clients: fewest clients in a round that it can work with, none of them malicious.
        clients_per_malicious: as many more for each of `num_malicious_nodes`.
        note: what to know before using it.
        module: where the class of that name is.
    """

    summary: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    needs_every_update: bool = False
    min_clients: int = 1
    clients_per_malicious: int = 0
    note: str = ""
    module: str = FLOWER


_ETA: Final = {"eta": Argument(0.1), "eta_l": Argument(0.1), "tau": Argument(1e-3, positive=True)}
_MOMENTS: Final = {"beta_1": Argument(0.9, below=1), "beta_2": Argument(0.99, below=1)}
_ETA_NOTE: Final = (
    "eta is the server's learning rate: a weight moves by up to about eta a round, also where updates are "
    "small, as long as they are above tau. eta_l has no effect: training.learning_rate is the clients'."
)
_MALICIOUS: Final = {"num_malicious_nodes": Argument(0)}
_KRUM_NOTE: Final = (
    "Distances are taken in float32 as x² + y² - 2xy: where updates differ by less than about 1/1000 of "
    "their norm, rounding takes part in the choice."
)

_CAP: Final = {"weight_cap": Argument(4.0, least=1.0)}
_CAP_NOTE: Final = (
    "Clients count by examples, but none for more than weight_cap times the median of the round: what a "
    "client says of its rows cannot be checked."
)

_COLLECT_NOTE: Final = (
    "Slow with many clients: Flower collects Python's garbage once for every update, about 0.2 s each beside "
    "a loaded TensorFlow."
)

STRATEGIES: Final[Mapping[str, StrategyEntry]] = {
    "FedAvg": StrategyEntry("Mean of the clients' weights by examples (McMahan et al., AISTATS 2017)."),
    "FedAvgM": StrategyEntry(
        "FedAvg with momentum at the server (Hsu et al., 2019).",
        {"server_learning_rate": Argument(1.0), "server_momentum": Argument(0.0, below=1)},
        note="With its default arguments it is FedAvg.",
    ),
    "FedProx": StrategyEntry(
        "FedAvg with a proximal term in the clients' loss (Li et al., MLSys 2020).",
        {"proximal_mu": Argument(0.0)},
        note="With proximal_mu = 0, the default, it is FedAvg.",
    ),
    "SCAFFOLD": StrategyEntry(
        "Control variates correct the drift of local steps (Karimireddy et al., ICML 2020).",
        {"server_learning_rate": Argument(1.0), "server_momentum": Argument(0.0, below=1)},
        note="Each client keeps a control variate, as large as the model, and sends its change with each "
        "update. The step size is that of the clients' plain SGD. Clients count by examples, also for the "
        "control variates; the paper has clients of one size.",
        module="shoal.server.algorithms.scaffold",
    ),
    "FedAdam": StrategyEntry(
        "Adam at the server (Reddi et al., ICLR 2021).", {**_ETA, **_MOMENTS}, note=_ETA_NOTE
    ),
    "FedYogi": StrategyEntry(
        "Yogi at the server (Reddi et al., ICLR 2021).",
        {**_ETA, **_MOMENTS, "eta": Argument(0.01), "eta_l": Argument(0.0316)},
        note=_ETA_NOTE,
    ),
    "FedAdagrad": StrategyEntry("Adagrad at the server (Reddi et al., ICLR 2021).", _ETA, note=_ETA_NOTE),
    "FedMedian": StrategyEntry(
        "Median of each weight (Yin et al., ICML 2018).",
        needs_every_update=True,
        note="Clients count the same, whatever their number of rows. With fewer than 3 it is their mean.",
    ),
    "FedTrimmedAvg": StrategyEntry(
        "Mean of each weight without its extremes (Yin et al., ICML 2018).",
        {"beta": Argument(0.2, below=0.5)},
        needs_every_update=True,
        note="Clients count the same, whatever their number of rows. At each end ⌊beta · clients⌋ values "
        "are cut: none at all from fewer than 1 / beta clients.",
    ),
    "Krum": StrategyEntry(
        "The one update nearest to its neighbours (Blanchard et al., NeurIPS 2017).",
        _MALICIOUS,
        needs_every_update=True,
        min_clients=3,
        clients_per_malicious=2,
        note="All other updates of the round are dropped. " + _KRUM_NOTE,
    ),
    "MultiKrum": StrategyEntry(
        "Mean by examples of the updates nearest to their neighbours (Blanchard et al., NeurIPS 2017).",
        {**_MALICIOUS, "num_nodes_to_select": Argument(1, least=1)},
        needs_every_update=True,
        min_clients=3,
        clients_per_malicious=2,
        note="Set num_nodes_to_select: with 1, the default, it is Krum. " + _KRUM_NOTE,
    ),
    "Bulyan": StrategyEntry(
        "Krum's choice, then the mean of the values nearest to the median (El Mhamdi et al., ICML 2018).",
        _MALICIOUS,
        needs_every_update=True,
        min_clients=3,
        clients_per_malicious=4,
        note="Clients count the same, whatever their number of rows. A round in which too few answer stops "
        "the run. " + _COLLECT_NOTE,
    ),
    "QFedAvg": StrategyEntry(
        "Gives clients with a high loss more weight (Li et al., ICLR 2020).",
        {"client_learning_rate": Argument(None, positive=True), "q": Argument(0.1)},
        needs_every_update=True,
        note="Clients count the same, whatever their number of rows; with q = 0 it is their mean. A step is "
        "the mean's divided by about 1 + q · ‖update‖² / (client_learning_rate · loss). That rate is "
        "training.learning_rate unless it is set, which suits SGD only: with Adam and its small rates the "
        "model hardly moves, so set it, from 1 down. Deviation from the paper: the loss is the mean while "
        "training, not that of the weights received. " + _COLLECT_NOTE,
    ),
    "NormClippedMean": StrategyEntry(
        "Mean by examples of updates that are scaled down to a norm (Sun et al., 2019).",
        {"norm": Argument(0.0), **_CAP},
        needs_every_update=True,
        note="norm = 0 takes the median of the round's norms. " + _CAP_NOTE,
        module="shoal.server.strategies.norm_clipped",
    ),
    "GeometricMedian": StrategyEntry(
        "RFA: the point with the least sum of distances to all updates (Pillutla et al., IEEE TSP 2022).",
        {"iterations": Argument(32, least=1), "smoothing": Argument(1e-6, positive=True), **_CAP},
        needs_every_update=True,
        note="smoothing is the distance below which an update pulls no harder. " + _CAP_NOTE,
        module="shoal.server.strategies.geometric_median",
    ),
    "WeightedMedian": StrategyEntry(
        "Median of each weight by examples (after Yin et al., ICML 2018).",
        _CAP,
        needs_every_update=True,
        note=_CAP_NOTE,
        module="shoal.server.strategies.weighted_median",
    ),
    "FLTrust": StrategyEntry(
        "Mean of updates by how far they point where a trusted client's does (after Cao et al., NDSS 2021).",
        {"trusted": Argument(0)},
        needs_every_update=True,
        note="trusted is the index of that client (shoal data shows it); it stands for the paper's data set "
        "at the server and must take part in every round: leave clients_per_round at 0. A round without it "
        "leaves the model as it was. Clients count the same, whatever their number of rows.",
        module="shoal.server.strategies.fltrust",
    ),
}

_COHORT: Final = "the cohort is shoal's to draw: set strategy.clients_per_round or strategy.evaluate_clients"
_RECORDS: Final = "the names in messages are shoal's"
_FUNCTIONS: Final = "a function cannot be set in a scenario"

# Arguments of the stock classes that a scenario may not set, and why.
RESERVED: Final[Mapping[str, str]] = {
    "fraction_train": _COHORT,
    "fraction_evaluate": _COHORT,
    "min_train_nodes": _COHORT,
    "min_evaluate_nodes": _COHORT,
    "min_available_nodes": _COHORT,
    "weighted_by_key": _RECORDS,
    "arrayrecord_key": _RECORDS,
    "configrecord_key": _RECORDS,
    "train_loss_key": _RECORDS,
    "train_metrics_aggr_fn": _FUNCTIONS,
    "evaluate_metrics_aggr_fn": _FUNCTIONS,
    "selection_rule": _FUNCTIONS,
}


def needs_every_update(strategy: StrategyConfig) -> bool:
    """Tell whether a strategy looks at single updates; a class of the user's own may."""
    return is_users_own(strategy.name) or STRATEGIES[strategy.name].needs_every_update


def reserved(given: Mapping[str, Any]) -> list[str]:
    """Return one line for each argument that a scenario may not set."""
    return [f"strategy.args.{name}: {RESERVED[name]}" for name in given if name in RESERVED]


def check_stock(strategy: StrategyConfig) -> list[str]:
    """Return what is wrong with the name and arguments of one of `STRATEGIES`; imports nothing."""
    entry = STRATEGIES.get(strategy.name)
    if entry is None:
        unknown = errors.unknown_name("strategy", strategy.name, STRATEGIES)
        return [f"strategy.name: {unknown}, or package.module:Class"]
    problems = reserved(strategy.args)
    ours = {name: value for name, value in strategy.args.items() if name not in RESERVED}
    problems += arguments.problems("strategy.args", strategy.name, ours, entry.arguments)
    return problems


def fewest_clients(strategy: StrategyConfig) -> int:
    """Return the fewest clients a round of one of `STRATEGIES` needs, for arguments that were checked."""
    entry, args = STRATEGIES[strategy.name], strategy.args
    base = entry.min_clients + entry.clients_per_malicious * int(args.get("num_malicious_nodes", 0))
    return max(base, int(args.get("num_nodes_to_select", 1)))
