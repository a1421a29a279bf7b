"""Scenarios in Python: changed by section, keyword or dotted key, with the messages that files have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.api.scenarios import KEYWORDS
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError
from shoal.simulations.portable_model import GivenModelConfig, PortableFunction


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        shoal.Scenario.load("linear", **changes)
    return caught.value.problems


def test_import_is_quick_and_loads_nothing_heavy() -> None:
    # 50 ms are the aim; modules are counted, as the time of one import says little on a busy machine.
    program = "import sys\nbefore = set(sys.modules)\nimport shoal\nprint(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert [name for name in loaded if name.startswith("shoal.")] == []
    assert len(loaded) < 20


def test_all_names_of_the_face_are_there_and_others_are_refused() -> None:
    assert set(shoal.__all__) <= set(dir(shoal))
    assert all(getattr(shoal, name) is not None for name in shoal.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'runn'; it has Callback, Engine"):
        _ = shoal.runn


def test_a_loaded_scenario_has_the_values_of_the_file() -> None:
    assert shoal.Scenario.load("linear").model_dump() == load_scenario("linear").model_dump()


def test_with_changes_the_named_keys_only_and_leaves_the_scenario_alone() -> None:
    scenario = shoal.Scenario.load("linear")
    before = scenario.model_dump()
    changed = scenario.with_(training={"rounds": 2, "metrics": ["mae"]}, seed=np.int64(7), name="other")
    assert scenario.model_dump() == before
    expected = {**before, "name": "other", "seed": 7}
    expected["training"] = {**before["training"], "rounds": 2, "metrics": ("mae",)}
    assert changed.model_dump() == expected


@pytest.mark.parametrize(("keyword", "value"), [
    ("rounds", 3), ("learning_rate", 0.5), ("local_epochs", 2), ("batch_size", 8), ("strategy", "FedAdam"),
    ("clients_per_round", 4), ("backend", "serial"), ("workers", 1), ("compare", True), ("output", "runs2"),
])  # fmt: skip
def test_a_keyword_is_the_key_that_it_stands_for(keyword: str, value: Any) -> None:
    section, key = KEYWORDS[keyword].split(".")
    assert getattr(getattr(shoal.Scenario.load("linear", **{keyword: value}), section), key) == value
    assert set(KEYWORDS) == {
        "rounds", "learning_rate", "local_epochs", "batch_size", "strategy", "clients_per_round", "backend",
        "workers", "compare", "output",
    }  # fmt: skip


def test_arguments_are_replaced_and_single_ones_set_by_their_dotted_key() -> None:
    scenario = shoal.Scenario.load("linear", strategy={"name": "FedAdam", "args": {"eta": 0.1, "tau": 0.2}})
    assert scenario.with_(**{"strategy.args.eta": 0.3}).strategy.args == {"eta": 0.3, "tau": 0.2}
    assert scenario.with_(strategy={"args": {"eta": 0.3}}).strategy.args == {"eta": 0.3}


def test_none_puts_a_key_back_to_its_default() -> None:
    scenario = shoal.Scenario.load("linear", partition={"clients": 7})
    assert scenario.with_(partition={"clients": None}).partition.clients is None


def test_a_relative_path_is_relative_to_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"source": "csv", "path": Path("rows.csv"), "label": "y"}
    assert shoal.Scenario.load("linear", data=data).data.path == str(tmp_path / "rows.csv")


def test_all_problems_at_once_with_the_nearest_names() -> None:
    found = problems(training={"roundz": 3, "rounds": 0, "optimizer": "sdg"}, seed="x")
    assert [problem.split(":")[0] for problem in found] == [
        "seed", "training.rounds", "training.optimizer", "training.roundz",
    ]  # fmt: skip
    assert 'did you mean "rounds"?' in found[3]


def test_an_unknown_keyword_names_the_nearest() -> None:
    (found,) = problems(round=3)
    assert found.startswith('unknown keyword "round". Did you mean "rounds"?')


def test_types_are_those_of_a_file() -> None:
    (found,) = problems(rounds="5")
    assert found == 'training.rounds: expected a whole number, got "5" (text)'


def test_a_key_below_a_value_is_refused() -> None:
    (found,) = problems(**{"training.rounds.most": 5})
    assert found.startswith("training.rounds: expected a whole number")


def test_a_model_that_was_given_goes_along_until_another_is_named() -> None:
    scenario = shoal.Scenario.load("linear", model={"name": "python:build"})
    given = GivenModelConfig.of(scenario.model, PortableFunction(b""))
    scenario = scenario.model_copy(update={"model": given})
    changed = scenario.with_(rounds=2, model={"args": {"width": 3}})
    assert isinstance(changed.model, GivenModelConfig)
    assert changed.model.args == {"width": 3}
    assert not isinstance(scenario.with_(model={"name": "mlp", "args": {}}).model, GivenModelConfig)
