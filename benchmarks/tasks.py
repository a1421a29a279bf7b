"""The tasks that every side of a comparison trains: real data, spread over clients by seed.

shoal gets raw rows through a `Population`; the others get the very rows that shoal's clients train on,
already encoded by shoal's preprocessing, as arrays in an .npz file. So all sides see the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.arrays import BATCH, Arrays
from shoal.common.config import Scenario
from shoal.common.schema import Column, Schema, Shard

SEED: Final = 1
ASKED: Final = 50  # clients that are asked for statistics
HELD_OUT: Final = 0.125  # of a client's rows, twice: 80 rows are 60 to train, 10 to validate, 10 to test


@dataclass(frozen=True, slots=True)
class Drawn:
    """A `common.schema.Population` that draws each client's rows from a pool, with replacement.

    Attributes:
        schema: of the rows; pool: all rows; sizes: rows of each client.
    """

    schema: Schema
    pool: Shard
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, client: int) -> str:
        return f"client-{client}"

    def rows(self, client: int) -> int:
        return int(self.sizes[client])

    def shard(self, client: int) -> Shard:
        rng = np.random.default_rng([SEED, client])
        return self.pool.take(rng.integers(self.pool.rows, size=self.rows(client)))


@dataclass(frozen=True)
class Task:
    """One benchmark task.

    Attributes:
        name: also of its model in `benchmarks/models.py`; title: for tables.
        pool: makes schema and rows.
        clients: in the federation; cohort: of them in a round.
        least, most: rows of a client, of which three quarters are trained on.
        learning_rate: of SGD.
    """

    name: str
    title: str
    pool: Callable[[], tuple[Schema, Shard]]
    clients: int
    cohort: int
    least: int
    most: int
    learning_rate: float

    @cached_property
    def _pools(self) -> tuple[Schema, Shard, Shard]:
        """Schema, the rows that clients draw from, and the fifth that no client ever sees."""
        schema, rows = self.pool()
        order = np.random.default_rng(SEED).permutation(rows.rows)
        cut = rows.rows // 5
        return schema, rows.take(order[cut:]), rows.take(order[:cut])

    def population(self, clients: int | None = None) -> Drawn:
        """Return the clients, or only the first ones."""
        sizes = np.random.default_rng(SEED).integers(self.least, self.most + 1, size=self.clients)
        schema, pool, _ = self._pools
        return Drawn(schema, pool, sizes[: clients or self.clients])

    def scenario(self, rounds: int, **resources: Any) -> Scenario:
        """Return shoal's configuration.

        Args:
            rounds: to run; resources: keys of that section.
        """
        return Scenario.model_validate(
            {
                "name": f"benchmark-{self.name}",
                "seed": SEED,
                "data": {
                    "source": "benchmarks.tasks:none",
                    "test_fraction": HELD_OUT,
                    "validation_fraction": HELD_OUT,
                },
                # Every word is kept, and numbers are used as the pool has them: so the statistics of some
                # clients give the same encoding as those of all.
                "preprocessing": {
                    "min_sites": 1,
                    "min_count": 1,
                    "scale": "none",
                    "missing_indicator": False,
                    "max_clients": ASKED,
                },
                "model": {"name": f"benchmarks.models:{self.name}"},
                "training": {
                    "rounds": rounds,
                    "batch_size": BATCH,
                    "learning_rate": self.learning_rate,
                    "metrics": ["accuracy", "loss"],
                },
                "strategy": {"clients_per_round": self.cohort, "evaluate_clients": self.cohort},
                "resources": {"workers": 2, **resources},
                "output": {"bootstrap": 0},
            }
        )

    def arrays(self, clients: int | None = None) -> Arrays:
        """Return what the other sides need: the rows that shoal's clients train on, and initial weights.

        Args:
            clients: only the first ones; `None` for all.
        """
        from shoal.clients.preprocessing.statistics import local_statistics
        from shoal.clients.runtime import ClientRuntime
        from shoal.common.models import build
        from shoal.server.preprocessing.fit import fit

        population, scenario = self.population(clients), self.scenario(1)
        runtime = ClientRuntime(scenario, population)
        told = [
            local_statistics(runtime.raw(c)["train"], population.schema, scenario.preprocessing)
            for c in range(min(ASKED, len(population)))
        ]
        spec = fit(told, population.schema, scenario.preprocessing)
        runtime.use_preprocessing(spec.to_json())
        train = [runtime.rows(c)["train"] for c in range(len(population))]
        held_out = self._pools[2]
        model = build(scenario.model, spec.input_spec, population.schema.num_classes, seed=SEED)
        return Arrays(
            x=np.concatenate([rows.x for rows in train]),
            y=np.concatenate([rows.y for rows in train]),
            bounds=np.cumsum([0, *(len(rows.y) for rows in train)]),
            test_x=runtime.encoder.encode(held_out.columns),
            test_y=held_out.labels,
            weights=model.get_weights(),
        )

    def write(self, path: Path, clients: int | None = None) -> None:
        """Write what `arrays` returns as an .npz file."""
        self.arrays(clients).write(path)


def _tumours() -> tuple[Schema, Shard]:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    columns = {f"x{i:02}": x[:, i] for i in range(x.shape[1])}
    schema = Schema(tuple(Column(n, "numeric") for n in columns), "binary", ("malignant", "benign"), "y")
    return schema, Shard(columns, y.astype(np.int32))


def _digits() -> tuple[Schema, Shard]:
    """Handwritten digits, each pixel of the 8 x 8 made 3 x 3, and a margin of 2: 28 x 28."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    large = np.kron(x.reshape(-1, 8, 8) / 16, np.ones((1, 3, 3)))
    image = np.pad(large, ((0, 0), (2, 2), (2, 2)))[..., None].astype(np.float32)
    schema = Schema(
        (Column("image", "image", (28, 28, 1)),), "multiclass", tuple(str(k) for k in range(10)), "digit"
    )
    return schema, Shard({"image": image}, y.astype(np.int32))


def _reviews() -> tuple[Schema, Shard]:
    from shoal.simulations.datasets.sentiment import read

    table = read()
    texts = np.array(table["text"].to_pylist(), object)
    labels = np.array([name == "positive" for name in table["sentiment"].to_pylist()], np.int32)
    schema = Schema((Column("text", "text"),), "binary", ("negative", "positive"), "sentiment")
    return schema, Shard({"text": texts}, labels)


TASKS: Final[dict[str, Task]] = {
    task.name: task
    for task in (
        Task("mlp", "MLP 30-64-1, 100 of 1,000 clients", _tumours, 1000, 100, 80, 80, 0.1),
        Task("cnn", "CNN 1.66 M, 20 clients", _digits, 20, 20, 67, 80, 0.05),
        Task("lstm", "LSTM 400 k, 20 clients", _reviews, 20, 20, 67, 80, 0.5),
    )
}
