"""The strategies by name. Free of Flower, which takes a second to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """A stock strategy of Flower.

    Attributes:
        summary: one line for lists and docs, with its paper.
        needs_every_update: whether it looks at single updates, rather than at their weighted mean.
        min_clients: fewest clients in a round that it can work with.
    """

    summary: str
    needs_every_update: bool = False
    min_clients: int = 1


STRATEGIES: Final[Mapping[str, Entry]] = {
    "FedAvg": Entry("Mean of the clients' weights by examples (McMahan et al., AISTATS 2017)."),
    "FedAvgM": Entry("FedAvg with momentum at the server (Hsu et al., 2019)."),
    "FedProx": Entry("FedAvg with a proximal term in the clients' loss (Li et al., MLSys 2020)."),
    "FedAdam": Entry("Adam at the server (Reddi et al., ICLR 2021)."),
    "FedYogi": Entry("Yogi at the server (Reddi et al., ICLR 2021)."),
    "FedAdagrad": Entry("Adagrad at the server (Reddi et al., ICLR 2021)."),
    "FedMedian": Entry("Median of each weight (Yin et al., ICML 2018).", needs_every_update=True),
    "FedTrimmedAvg": Entry(
        "Mean of each weight without its extremes (Yin et al., ICML 2018).", needs_every_update=True
    ),
    "Krum": Entry(
        "The one update nearest to its neighbours (Blanchard et al., NeurIPS 2017).",
        needs_every_update=True,
        min_clients=3,
    ),
    "MultiKrum": Entry(
        "Mean of the updates nearest to their neighbours (Blanchard et al., NeurIPS 2017).",
        needs_every_update=True,
        min_clients=3,
    ),
    "Bulyan": Entry(
        "Krum's choice, then a trimmed mean (El Mhamdi et al., ICML 2018).",
        needs_every_update=True,
        min_clients=3,
    ),
    "QFedAvg": Entry(
        "Gives clients with a high loss more weight (Li et al., ICLR 2020).", needs_every_update=True
    ),
}
