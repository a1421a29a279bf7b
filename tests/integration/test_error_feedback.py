"""Error feedback: a step whose state each client keeps, in every execution mode and over every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.clients.update.pipeline import Pipeline
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.config.sections import UpdateConfig
from shoal.common.origin import Origin
from shoal.server.checkpoint import Checkpoints
from shoal.simulations.results import RunFolder
from shoal.simulations.run import resume_run, run_scenario
from tests.helpers.stateful import Crash, Lines, bits, distance_to_optimum

TOPK = ("update.compress=topk", "update.top_share=0.5")


def test_what_was_sent_and_what_is_kept_sum_to_all_updates() -> None:
    """Σ decoded = Σ updates − residual, from the definition: each residual is what was not sent so far."""
    pipeline = Pipeline.of([], UpdateConfig(compress="topk", top_share=0.2))
    origin, shapes = Origin(1, 1, 0), [(3, 4), (5,)]
    like = [np.zeros(shape, np.float32) for shape in shapes]
    rng = np.random.default_rng(0)
    states = {name: value[None] for name, value in pipeline.init_state(like).items()}
    total, sent = np.zeros(17), np.zeros(17)
    for _ in range(50):
        update = [rng.normal(size=(1, *shape)).astype(np.float32) for shape in shapes]
        total += np.concatenate([u.reshape(-1) for u in update])
        left, states = pipeline.apply(update, [origin], states)
        encoded = pipeline.encode([u[0] for u in left], origin)
        assert np.count_nonzero(encoded[1]) == 4  # ⌈0.2 · 17⌉
        sent += np.concatenate([u.reshape(-1) for u in pipeline.codec.decode(encoded, like)])
    np.testing.assert_allclose(sent + states["residual"][0], total, atol=1e-4)
    assert np.abs(total - sent).max() > 0.1  # something was left out


def test_it_leads_to_the_optimum_where_topk_alone_does_not() -> None:
    """FedAvg with one step a round is gradient descent, and its optimum that of all rows together.

    At the optimum the clients' gradients cancel, but not the larger halves of them: topk alone stays away.
    With error feedback, what is sent lags by a bounded residual, which shrinks with the learning rate.
    """
    settings = ("training.local_steps=1", "training.learning_rate=0.02", *TOPK)
    lines = Lines((40,) * 4)
    assert distance_to_optimum("FedAvg", lines, 150, *settings) < 0.03
    assert distance_to_optimum("FedAvg", lines, 150, *settings, "update.error_feedback=false") > 0.3


# -- backends -----------------------------------------------------------------------------------


def mlp(*settings: str) -> Scenario:
    given = (
        "strategy.name=FedAvg",
        "strategy.clients_per_round=6",
        "strategy.evaluate_clients=2",
        "partition.clients=8",
        "training.rounds=4",
        "training.local_steps=3",
        "training.batch_size=8",
        "training.learning_rate=0.003",
        "model.name=mlp",
        "output.bootstrap=0",
        "resources.backend=serial",
        "resources.execution_mode=sequential",
        "resources.clients_per_chunk=3",
        "update.compress=topk",
        "update.top_share=0.05",
    )
    return load_scenario("linear", [*given, *settings])


def finished(directory: Path, *settings: str) -> Path:
    return run_scenario(mlp(f"output.directory={directory}", *settings))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("whole"))


def test_workers_that_train_in_stacks_give_the_same_bits(tmp_path: Path, ray_session: None) -> None:
    stacked = "resources.execution_mode=stacked"
    serial = finished(tmp_path / "serial", stacked)
    ray = finished(tmp_path / "ray", stacked, "resources.backend=ray", "resources.workers=2")
    assert bits(ray) == bits(serial)


def test_clients_over_grpc_that_keep_their_own_residuals_give_the_same_bits(
    whole: Path, tmp_path: Path, ray_session: None
) -> None:
    over = ("resources.backend=ray", "resources.workers=2", "resources.transport=grpc")
    assert bits(finished(tmp_path, *over)) == bits(whole)


def test_a_run_that_was_killed_goes_on_with_the_residuals_of_its_checkpoint(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def fail(self: Checkpoints, number: int, state: Any) -> None:
        if number >= 3:
            raise Crash
        save(self, number, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", fail)
        with pytest.raises(Crash):
            finished(tmp_path)
    (folder,) = tmp_path.iterdir()
    run = RunFolder(folder)
    try:
        resume_run(run, run.scenario())
    finally:
        run.close()
    assert bits(folder) == bits(whole)


def test_residuals_change_what_is_learnt(whole: Path, tmp_path: Path) -> None:
    assert bits(finished(tmp_path, "update.error_feedback=false")) != bits(whole)
