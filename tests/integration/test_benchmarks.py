"""The benchmarks run, and what they compare is the same: small cases of the real programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from benchmarks import page, plots, results
from benchmarks.children import measure
from benchmarks.growth_side import Case

MB = 1e6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (results, plots, page):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_server_s_memory_does_not_grow_with_the_clients_of_a_mean() -> None:
    """A model of 1 MB: five times as many clients may not cost the server a tenth of their weights."""
    grown = []
    for cohort in (20, 100):
        case = Case(population=100, cohort=cohort, rounds=2, rows=20, hidden=7800, steps=1)
        found = measure("growth_side", asdict(case))
        assert len(found["seconds"]) == 1
        assert min(found["workers"]) > 0
        grown.append((found["peak"] - found["before"]) / MB)
    assert grown[1] - grown[0] < 0.1 * 80  # 80 clients more, a megabyte each


@pytest.mark.slow
def test_the_bare_loop_takes_the_very_steps_of_shoal_s_clients(tmp_path: Path) -> None:
    """From the same weights, over the same rows in the same batches, to the same weights."""
    from benchmarks.bare_loops import sequential
    from benchmarks.tasks import TASKS
    from shoal.clients.training.local_settings import LocalSettings
    from shoal.clients.training.trainer import Trainer

    task = TASKS["mlp"]
    task.arrays(2).write(tmp_path / "data.npz")
    from benchmarks.arrays import BATCH, Arrays
    from benchmarks.models import compiled

    arrays = Arrays.read(tmp_path / "data.npz")
    import keras

    models: list[keras.Model] = []

    def remember(*args: object, **given: object) -> keras.Model:
        models.append(compiled(*args, **given))
        return models[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.bare_loops.compiled", remember)
        sequential("mlp", arrays, [1])()

    class InOrder:
        def permutation(self, rows: int) -> np.ndarray:
            return np.arange(rows)

    trainer = Trainer(compiled("mlp", keras, task.learning_rate))
    settings = LocalSettings(learning_rate=task.learning_rate, batch_size=BATCH)
    x, y = arrays.client(1)
    trained, _, steps = trainer.train(arrays.weights, x, y, settings, InOrder())  # type: ignore[arg-type]
    assert steps == 6  # 60 rows in batches of 10
    for a, b in zip(models[0].get_weights(), trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_tables_plots_and_page_are_made_of_what_was_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {str(n): {"seconds": [0.1 * n, 0.2 * n, 0.3 * n]} for n in (1, 10)}
    rows = [[n, median(found[str(n)]["seconds"])] for n in (1, 10)]
    results.save("growth-cohort", "Clients", ("clients", "seconds"), rows, notes=["A note."], data=found)
    plots.main()
    assert "<svg" in (folder / "growth-cohort.svg").read_text()
    assert json.loads((folder / "growth-cohort.json").read_text())["rows"] == rows
    for name in page.PAGES:
        (folder / name).write_text((page.DOCS / name).read_text())
    monkeypatch.setattr(page, "DOCS", folder)
    page.main()
    made = (folder / "performance.md").read_text()
    assert "| 10 | 2 |" in made
    assert made.count("growth-cohort.svg") == 1
    page.main()  # once more changes nothing
    assert (folder / "performance.md").read_text() == made


@pytest.mark.parametrize("name", page.PAGES)
def test_a_page_shows_what_is_in_the_results(name: str) -> None:
    text = (page.DOCS / name).read_text(encoding="utf-8")
    assert page.measured(name) in text, "run `python -m benchmarks.page`"


def test_privacy_is_measured_beside_the_same_training_without(folder: Path) -> None:
    """Ratios of the real programs; what they are is for quiet machines, that both trained is seen here."""
    from benchmarks import private, private_side

    private.main(quick=True)
    told = json.loads((folder / "private.json").read_text())
    assert [row[-1] for row in told["rows"]] == ["≤ 2", "≤ 1.15"]
    for row, found in zip(told["rows"], told["data"].values(), strict=True):
        assert len(found["given"]) == 2
        assert min(found["given"]) > 0
        assert row[3] == pytest.approx(private_side.ratio(found))
    # 4 beside (1 + 3) / 2 and 6 beside (3 + 1) / 2: ratios 2 and 3, of which 2.5 is the median
    assert private_side.ratio({"without": [1.0, 3.0, 1.0], "given": [4.0, 6.0]}) == 2.5


def test_ten_clients_bring_back_what_they_were_sent() -> None:
    """It checks the sum of its rounds itself: each adds one to all weights, at each client."""
    from benchmarks import transport

    found = transport.shoal(numbers=1_000, rounds=3)
    assert len(found["seconds"]) == 3
    assert found["rate"] > 0


def test_a_secure_session_of_the_benchmark_gives_the_sum_of_those_that_stay() -> None:
    """It checks the sum and who was lost itself; 30 of 100 may be."""
    from benchmarks import secure

    found = secure.session(secure.Case(clients=100, lost=10, numbers=1_000), 1)
    assert found["neighbours"] == 60
    assert found["seconds"][0] > found["clear"][0]
    assert len(secure.masks(neighbours=3, numbers=1_000, times=2)["cpu"]) == 2


@pytest.mark.slow
def test_every_other_round_is_logged(ray_session: None) -> None:
    """`measure` itself checks that the log is whole and has the requests of the even rounds."""
    from benchmarks import audit

    found = audit.measure(Case(population=8, cohort=4, rounds=3))
    assert found["with"] > 0
    assert found["without"] > 0
    # Training in round 2 of 3: 4 requests; a process answers once for the clients that it took.
    assert 4 < found["messages"] <= 8
    assert min(audit.one_entry(100).values()) > 0
