"""`shoal validate`: checks over sections, over registries, and on the data."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.common.config.file import BUILTIN_SCENARIOS, load_scenario
from shoal.simulations.checks.scenario import validate

BUILTIN = sorted(path.stem for path in BUILTIN_SCENARIOS.glob("*.toml"))

CSV = """\
name = "mine"
[data]
source = "csv"
path = "rows.csv"
client_column = "site"
label = "sick"
[partition]
min_rows = 2
[model]
name = "logistic"
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A scenario over a CSV of two sites with 20 rows each."""
    rows = [f"{site},{age},{'yes' if age % 3 else 'no'}" for site in "ab" for age in range(20, 40)]
    (tmp_path / "rows.csv").write_text("\n".join(["site,age,sick", *rows]) + "\n", encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(CSV, encoding="utf-8")
    return path


def problems(path: Path, *overrides: str, deep: bool = False) -> list[str]:
    return validate(load_scenario(path, overrides), deep)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (['data.include=["age"]', 'data.exclude=["age"]'], ["both name age"]),
        (['data.include=["sick"]'], ['"sick", which is data.label']),
        (['data.include=["site"]'], ['"site", which is data.client_column']),
        (["data.label=site"], ['are both "site"']),
        (["data.text_column=sick"], ["is excluded or is the label"]),
        (["data.positive=yes", "data.task=multiclass"], ['task is "multiclass"']),
        (["data.task=regression", 'training.metrics=["auc"]'], ['training.metrics: "auc" does not fit']),
        (["data.positive=yes", "training.monitor=mae"], ["does not fit a binary task; use one of acc"]),
        (['training.metrics=["f1"]', "training.monitor=auc"], ["not among training.metrics (f1)"]),
        (["training.local_steps=5", "training.local_epochs=2"], ["set only one of them"]),
        (["training.optimizer_args.learning_rate=1"], ["set training.learning_rate instead"]),
        (["training.early_stopping.patience=3", "data.validation_fraction=0"], ["needs validation rows"]),
        (["data.task=regression", "training.class_weights=balanced"], ["needs classes"]),
        (["privacy.unit=record"], ["needs privacy.epsilon"]),
        (
            ["privacy.unit=record", "privacy.epsilon=1", "privacy.statistics_epsilon=1"],
            ["leaves nothing of privacy.epsilon = 1"],
        ),
        (
            [
                "privacy.unit=record",
                "privacy.epsilon=1",
                "resources.execution_mode=stacked",
                "model.precision=mixed_float16",
                "strategy.name=QFedAvg",
            ],
            ["the gradient of each row", "may overflow", "weights clients by their training loss"],
        ),
        (
            ["partition.clients=2", "partition.scheme=iid", "strategy.clients_per_round=3"],
            ["strategy.clients_per_round = 3 is more than partition.clients = 2"],
        ),
        (
            ["partition.clients=1", "partition.scheme=iid"],
            ["min_sites = 2 is more than partition.clients = 1"],
        ),
        (["model.name=logistc"], ['Did you mean "logistic"?']),
        (["strategy.name=FedAgv"], ['Did you mean "FedAvg"?']),
        (["data.source=cvs"], ['Did you mean "csv"?']),
        (["data.path=/none/rows.csv"], ["data.path: there is no folder /none"]),
        (["model.name=logistc", "strategy.name=FedAgv", "data.label=site"], ["logistic", "FedAvg", "both"]),
    ],
)
def test_each_contradiction_is_found(mine: Path, overrides: list[str], parts: list[str]) -> None:
    found = problems(mine, *overrides)
    assert len(found) >= len(parts)
    for part in parts:
        assert any(part in line for line in found), (part, found)


def test_a_missing_data_file_names_the_nearest(mine: Path) -> None:
    (problem,) = problems(mine, f"data.path={mine.parent / 'row.csv'}")
    assert problem.endswith(f"row.csv. Did you mean {mine.parent / 'rows.csv'}?")


def test_a_good_scenario_has_no_problems(mine: Path) -> None:
    assert problems(mine) == []
    assert problems(mine, 'training.metrics=["auc","loss"]', "training.monitor=loss") == []


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_scenarios_are_valid(name: str) -> None:
    assert validate(load_scenario(name), deep=False) == []


def test_deep_validation_builds_the_model_on_the_data(mine: Path) -> None:
    assert problems(mine, deep=True) == []


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("data.label=ill", "ill"),  # no such column
        ("strategy.clients_per_round=3", "more than the 2 clients"),
        ("preprocessing.min_sites=3", "more than the 2 clients"),
        ("training.loss=mean_sqared_error", "mean_squared_error"),
        ("training.optimizer_args.momentun=0.9", "momentun"),
    ],
)
def test_deep_validation_finds_what_only_the_data_tells(mine: Path, override: str, part: str) -> None:
    assert part in " ".join(problems(mine, override, deep=True))
