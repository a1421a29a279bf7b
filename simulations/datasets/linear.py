"""A synthetic line with noise; docs/data/linear.md is the data card."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from shoal.common import arguments
from shoal.common.arguments import Argument
from shoal.common.config import Scenario
from shoal.common.errors import ConfigError
from shoal.common.schema import Column, Population, Schema, Shard
from shoal.common.seeds import generator

LOW, HIGH = 0.0, 10.0
INTERCEPT, SLOPE, NOISE = 2.0, 3.0, 0.5
_ROWS, _WIDTH = 100, 5.0
_ARGUMENTS = {"rows": Argument(_ROWS, least=10), "width": Argument(_WIDTH, positive=True, most=HIGH - LOW)}


@dataclass(frozen=True, slots=True)
class LinearPopulation:
    """Clients with y = 2 + 3 x + N(0, 0.5²), whose x are in shifted parts of [0, 10].

    A client's rows are generated on demand, so a million clients cost nothing to create.

    Attributes:
        clients: their number; seed: of all draws; rows_each: rows per client.
        width: width of a client's range of x; the lower ends of the ranges are spaced evenly from 0 to 10 -
            width.
    """

    clients: int
    seed: int
    rows_each: int
    width: float
    schema: Schema = field(default=Schema((Column("x", "numeric"),), "regression", (), "y"))

    def __len__(self) -> int:
        return self.clients

    def name(self, client: int) -> str:
        """Return the display name of a client."""
        return f"client-{client:0{len(str(self.clients - 1))}d}"

    def rows(self, client: int) -> int:
        """Return the number of rows of a client."""
        return self.rows_each

    def shard(self, client: int) -> Shard:
        """Generate a client's rows."""
        if not 0 <= client < self.clients:
            raise IndexError(f"client {client} of {self.clients}")
        rng = generator(self.seed, "data", client=client)
        start = LOW + (HIGH - LOW - self.width) * client / max(1, self.clients - 1)
        x = rng.uniform(start, start + self.width, self.rows_each)
        y = INTERCEPT + SLOPE * x + rng.normal(0, NOISE, self.rows_each)
        return Shard({"x": x}, y.astype(np.float32))


def load(scenario: Scenario) -> Population:
    """Create the population; `data.args` may set rows (per client) and width (of a client's range of x).

    Raises:
        ConfigError: values out of range.
    """
    given = scenario.data.args
    problems = list(arguments.problems("data.args", "linear", given, _ARGUMENTS))
    if problems:
        raise ConfigError(problems)
    rows, width = given.get("rows", _ROWS), given.get("width", _WIDTH)
    return LinearPopulation(scenario.partition.clients or 10, scenario.seed, rows, float(width))
