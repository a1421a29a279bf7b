"""The table of strategies by name. Does not import Flower, which takes a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shoal.common import arguments, errors
from shoal.common.arguments import Argument
from shoal.common.config import StrategyConfig
from shoal.common.plugins import is_users_own

FLOWER: Final = "flwr.serverapp.strategy"  # the module of Flower's classes


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy that a scenario can select: one of Flower's, or one of shoal's own.

    Attributes:
        summary: one line for lists and docs, with the paper.
        arguments: name → argument that a scenario can set; as in the signature of the class.
        needs_every_update: whether it needs every single update, not only their weighted mean.
        min_clients: minimum number of clients in a round if none is malicious.
        clients_per_malicious: additional clients for each of `num_malicious_nodes`.
        sends: what its clients send with each update; nothing protects it. As in their `ClientAlgorithm`.
        needs_plain_sgd: whether it computes with the step size of the clients' plain SGD.
        note: remarks for the docs.
        module: the module that contains the class.
    """

    summary: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    needs_every_update: bool = False
    min_clients: int = 1
    clients_per_malicious: int = 0
    sends: str = ""
    needs_plain_sgd: bool = False
    note: str = ""
    module: str = FLOWER


_ETA: Final = {"eta": Argument(0.1), "eta_l": Argument(0.1), "tau": Argument(1e-3, positive=True)}
_MOMENTS: Final = {"beta_1": Argument(0.9, below=1), "beta_2": Argument(0.99, below=1)}
_ETA_NOTE: Final = (
    "eta is the server's learning rate: a weight moves by up to about eta per round, even for small updates, "
    "as long as they are above tau. eta_l has no effect; clients use training.learning_rate."
)
_MALICIOUS: Final = {"num_malicious_nodes": Argument(0)}
_KRUM_NOTE: Final = (
    "Distances are computed in float32 as x² + y² - 2xy, so if updates differ by less than about 1/1000 of "
    "their norm, rounding affects the choice."
)

_CAP: Final = {"weight_cap": Argument(4.0, least=1.0)}
_CAP_NOTE: Final = (
    "Clients are weighted by examples, capped at weight_cap times the median of the round, because the "
    "number of rows a client reports cannot be verified."
)

_COLLECT_NOTE: Final = (
    "Slow with many clients: Flower runs Python's garbage collector for every update, about 0.2 s each with "
    "TensorFlow loaded."
)

STRATEGIES: Final[Mapping[str, StrategyEntry]] = {
    "FedAvg": StrategyEntry(
        "Mean of the clients' weights, weighted by examples (McMahan et al., AISTATS 2017)."
    ),
    "FedAvgM": StrategyEntry(
        "FedAvg with momentum at the server (Hsu et al., 2019).",
        {"server_learning_rate": Argument(1.0), "server_momentum": Argument(0.0, below=1)},
        note="With the default arguments, equal to FedAvg.",
    ),
    "FedProx": StrategyEntry(
        "FedAvg with a proximal term in the clients' loss (Li et al., MLSys 2020).",
        {"proximal_mu": Argument(0.0)},
        note="With proximal_mu = 0, the default, equal to FedAvg.",
    ),
    "SCAFFOLD": StrategyEntry(
        "Control variates correct the drift of local steps (Karimireddy et al., ICML 2020).",
        {"server_learning_rate": Argument(1.0), "server_momentum": Argument(0.0, below=1)},
        sends="the change of its control variates, computed from the same rows",
        needs_plain_sgd=True,
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
        note="Clients count equally, whatever their number of rows. With fewer than 3 clients, it is the "
        "mean.",
    ),
    "FedTrimmedAvg": StrategyEntry(
        "Mean of each weight without the extremes (Yin et al., ICML 2018).",
        {"beta": Argument(0.2, below=0.5)},
        needs_every_update=True,
        note="Clients count equally, whatever their number of rows. ⌊beta · clients⌋ values are removed at "
        "each end, so none with fewer than 1 / beta clients.",
    ),
    "Krum": StrategyEntry(
        "The one update nearest to its neighbours (Blanchard et al., NeurIPS 2017).",
        _MALICIOUS,
        needs_every_update=True,
        min_clients=3,
        clients_per_malicious=2,
        note="All other updates of the round are discarded. " + _KRUM_NOTE,
    ),
    "MultiKrum": StrategyEntry(
        "Mean of the updates nearest to their neighbours, weighted by examples (Blanchard et al., NeurIPS "
        "2017).",
        {**_MALICIOUS, "num_nodes_to_select": Argument(1, least=1)},
        needs_every_update=True,
        min_clients=3,
        clients_per_malicious=2,
        note="Set num_nodes_to_select: with 1, the default, it equals Krum. " + _KRUM_NOTE,
    ),
    "Bulyan": StrategyEntry(
        "Krum's selection, then the mean of the values nearest to the median (El Mhamdi et al., ICML 2018).",
        _MALICIOUS,
        needs_every_update=True,
        min_clients=3,
        clients_per_malicious=4,
        note="Clients count equally, whatever their number of rows. If too few clients reply in a round, the "
        "run stops. " + _COLLECT_NOTE,
    ),
    "QFedAvg": StrategyEntry(
        "Gives clients with a high loss more weight (Li et al., ICLR 2020).",
        {"client_learning_rate": Argument(None, positive=True), "q": Argument(0.1)},
        needs_every_update=True,
        note="Clients count equally, whatever their number of rows; with q = 0 it is their mean. The step is "
        "that of the mean divided by about 1 + q · ‖update‖² / (client_learning_rate · loss). "
        "client_learning_rate defaults to training.learning_rate, which suits SGD only: with Adam and its "
        "small rates the model hardly moves, so set it, starting at 1 and going down. Deviation from the "
        "paper: the "
        "loss is the mean during training, not the loss of the received weights. " + _COLLECT_NOTE,
    ),
    "NormClippedMean": StrategyEntry(
        "Mean of norm-clipped updates, weighted by examples (Sun et al., 2019).",
        {"norm": Argument(0.0), **_CAP},
        needs_every_update=True,
        note="norm = 0 uses the median norm of the round. " + _CAP_NOTE,
        module="shoal.server.strategies.norm_clipped",
    ),
    "GeometricMedian": StrategyEntry(
        "RFA: the point with the smallest sum of distances to all updates (Pillutla et al., IEEE TSP 2022).",
        {"iterations": Argument(32, least=1), "smoothing": Argument(1e-6, positive=True), **_CAP},
        needs_every_update=True,
        note="smoothing is a lower limit on the distances used as weights. " + _CAP_NOTE,
        module="shoal.server.strategies.geometric_median",
    ),
    "WeightedMedian": StrategyEntry(
        "Median of each weight, weighted by examples (after Yin et al., ICML 2018).",
        _CAP,
        needs_every_update=True,
        note=_CAP_NOTE,
        module="shoal.server.strategies.weighted_median",
    ),
    "FLTrust": StrategyEntry(
        "Mean of updates, weighted by cosine similarity to a trusted client's update (after Cao et al., NDSS "
        "2021).",
        {"trusted": Argument(0)},
        needs_every_update=True,
        note="trusted is the index of the trusted client (shoal data shows it), which replaces the paper's "
        "data set at the server. It must take part in every round: leave clients_per_round at 0. A "
        "round without it does not change the model. Clients count equally, whatever their number of "
        "rows.",
        module="shoal.server.strategies.fltrust",
    ),
}

_COHORT: Final = "shoal samples the cohort: set strategy.clients_per_round or strategy.evaluate_clients"
_RECORDS: Final = "shoal sets the names of records in messages"
_FUNCTIONS: Final = "a function cannot be set in a scenario"

# Arguments of Flower's classes that a scenario may not set, and why.
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
    """Whether a strategy needs single updates; the user's own class is assumed to."""
    return is_users_own(strategy.name) or STRATEGIES[strategy.name].needs_every_update


def reserved(given: Mapping[str, Any]) -> list[str]:
    """Return one line for each argument that a scenario may not set."""
    return [f"strategy.args.{name}: {RESERVED[name]}" for name in given if name in RESERVED]


def check_stock(strategy: StrategyConfig) -> list[str]:
    """Return one line for each problem with the name and arguments of one of `STRATEGIES`."""
    entry = STRATEGIES.get(strategy.name)
    if entry is None:
        unknown = errors.unknown_name("strategy", strategy.name, STRATEGIES)
        return [f"strategy.name: {unknown}, or package.module:Class"]
    problems = reserved(strategy.args)
    ours = {name: value for name, value in strategy.args.items() if name not in RESERVED}
    problems += arguments.problems("strategy.args", strategy.name, ours, entry.arguments)
    return problems


def min_clients_per_round(strategy: StrategyConfig) -> int:
    """Return the minimum number of clients per round of one of `STRATEGIES`, for valid arguments."""
    entry, args = STRATEGIES[strategy.name], strategy.args
    base = entry.min_clients + entry.clients_per_malicious * int(args.get("num_malicious_nodes", 0))
    return max(base, int(args.get("num_nodes_to_select", 1)))
