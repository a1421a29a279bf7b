"""`model.aggregate_statistics = "local"`: each client keeps its own batch-norm statistics, unseen by others.

Andreux, du Terrail, Beguier, Tramel: Siloed Federated Learning for Multi-centric Histopathology Datasets,
DCL 2020.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from flwr.app import ArrayRecord
from watching import run_watched

from shoal.clients.state import DiskStateStore, Mark
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.models import build
from shoal.common.schema import InputSpec
from shoal.common.update.spec import WeightSpec
from shoal.common.weights import record_to_weights
from shoal.server.checkpoint import Checkpoints
from shoal.simulations.lifecycle import CHECKPOINTS, CLIENT_STATES
from shoal.simulations.results import RunFolder
from shoal.simulations.run import resume_run, run_scenario

CLIENTS, ROUNDS = 3, 3
MEAN, VARIANCE = 4, 5  # of the batch norm, in the order of `get_weights`
SHARED = [(1, 4), (4,), (4,), (4,), (4, 1), (1,)]  # two dense layers, and gamma and beta between them


def normalised(spec: InputSpec, classes: int) -> keras.Model:
    """A dense layer, batch norm, and a linear unit."""
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input(spec.shape), *layers])


def scenario(*settings: str) -> Scenario:
    given = (
        f"model.name={__name__}:normalised",
        "model.aggregate_statistics=local",
        f"partition.clients={CLIENTS}",
        f"training.rounds={ROUNDS}",
        "training.local_steps=2",
        "training.learning_rate=0.01",
        "output.bootstrap=0",
        "resources.backend=serial",
        "resources.execution_mode=sequential",
    )
    return load_scenario("linear", [*given, *settings])


def shapes(record: Any) -> list[tuple[int, ...]]:
    return [tuple(array.shape) for array in record.values()]


def test_statistics_are_in_no_message() -> None:
    _, seen = run_watched(scenario())
    sent = [
        shapes(record)
        for request, reply in seen
        if request.metadata.message_type.startswith(("train", "evaluate"))
        for content in (request.content, reply.content)
        for record in content.values()
        if isinstance(record, ArrayRecord)
    ]
    assert len(sent) > 2 * ROUNDS
    assert all(found == SHARED for found in sent)
    _, seen = run_watched(scenario("model.aggregate_statistics=mean"))
    first = seen[-1][0].content["arrays"]
    assert len(shapes(first)) == len(SHARED) + 2  # as a mean they travel


def states_of(folder: Path) -> dict[str, np.ndarray]:
    """Return the clients' states at the last checkpoint, name → (clients, ...)."""
    found = Checkpoints(folder / CHECKPOINTS, RunFolder(folder).scenario()).load()
    assert found is not None
    assert found[1]["progress"]["round"] == ROUNDS
    store = DiskStateStore(folder / CLIENT_STATES)
    try:
        store.restore(Mark.from_json(found[1]["client_states"]))
        batch = store.read(range(CLIENTS))
    finally:
        store.close()
    assert batch.clients.tolist() == [*range(CLIENTS)]
    return dict(batch.arrays)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_scenario(scenario(f"output.directory={tmp_path_factory.mktemp('whole')}"))


def test_each_client_keeps_statistics_of_its_own_rows(whole: Path) -> None:
    """Clients' inputs lie in different parts of [0, 10], and so do the means of what batch norm sees."""
    states = states_of(whole)
    assert set(states) == {f"personal.{MEAN}", f"personal.{VARIANCE}"}
    means = states[f"personal.{MEAN}"]
    assert means.shape == (CLIENTS, 4)
    for one in range(CLIENTS):
        assert np.abs(means[one]).max() > 0  # they start at 0
        for other in range(one):
            assert np.abs(means[one] - means[other]).max() > 0.1


def test_the_exported_model_has_the_initial_ones(whole: Path) -> None:
    """Nobody has averaged them, and no client's are in it."""
    config = scenario()
    model = keras.models.load_model(whole / "model.keras")
    (layer,) = [one for one in model._flatten_layers() if isinstance(one, keras.layers.BatchNormalization)]
    initial = build(config.model, InputSpec("vector", (1,)), 0, seed=config.seed)
    roles = WeightSpec.of(initial, local_statistics=True)
    assert roles.personal == [MEAN, VARIANCE]
    np.testing.assert_array_equal(layer.moving_mean, initial.get_weights()[MEAN])
    np.testing.assert_array_equal(layer.moving_variance, initial.get_weights()[VARIANCE])


class Crash(BaseException):
    """Stands for the end of the process."""


def test_a_run_that_was_killed_goes_on_with_them(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def fail(self: Checkpoints, number: int, state: Any) -> None:
        if number == 2:
            raise Crash
        save(self, number, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", fail)
        with pytest.raises(Crash):
            run_scenario(scenario(f"output.directory={tmp_path}"))
    (folder,) = tmp_path.iterdir()
    again = RunFolder(folder)
    try:
        resume_run(again, again.scenario())
    finally:
        again.close()
    here, there = states_of(folder), states_of(whole)
    for name in there:
        np.testing.assert_array_equal(here[name], there[name])
    for a, b in zip(weights(folder), weights(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def weights(folder: Path) -> list[np.ndarray]:
    found = Checkpoints(folder / CHECKPOINTS, RunFolder(folder).scenario()).load()
    assert found is not None
    return record_to_weights(found[1]["progress"]["arrays"])


def test_scaffold_keeps_them_beside_its_control_variates(tmp_path: Path) -> None:
    folder = run_scenario(scenario("strategy.name=SCAFFOLD", f"output.directory={tmp_path}"))
    states = states_of(folder)
    variates = {f"c{k}" for k in range(len(SHARED))}
    assert set(states) == {*variates, f"personal.{MEAN}", f"personal.{VARIANCE}"}
    assert [states[f"c{k}"].shape[1:] for k in range(len(SHARED))] == SHARED
