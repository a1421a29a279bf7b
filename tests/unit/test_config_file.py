"""Scenario files: places, plain words, all problems at once, overrides, paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.common.config import Scenario
from shoal.common.config import file as config_file
from shoal.common.errors import ConfigError

SMALL = """\
name = "small"

[data]
source = "csv"
path = "rows.csv"

[model]
name = "mlp"
"""


@pytest.fixture
def scenario_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def problems_of(
    path: Path | str, *overrides: str, builtin: Path = config_file.BUILTIN_SCENARIOS
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_file.load_scenario(path, overrides, builtin=builtin)
    return caught.value.problems


def problems_in(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    return problems_of(path, *overrides)


def test_a_small_file_takes_the_defaults(scenario_file: Path) -> None:
    scenario = config_file.load_scenario(scenario_file)
    assert (scenario.name, scenario.data.source, scenario.model.name) == ("small", "csv", "mlp")
    assert scenario.training.rounds == 20
    assert scenario.training.monitor == "auto"


def test_relative_data_path_is_relative_to_the_file(
    scenario_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    scenario = config_file.load_scenario(scenario_file)
    assert scenario.data.path == str(scenario_file.parent / "rows.csv")


def test_relative_data_path_of_an_override_is_relative_to_the_current_folder(
    scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    scenario = config_file.load_scenario(scenario_file, ["data.path=mine.csv"])
    assert scenario.data.path == str(elsewhere / "mine.csv")


def test_all_problems_are_reported_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = """\
name = "bad name"
seed = "7"

[data]
task = "binry"
test_fraction = 0.6

[modl]
name = "mlp"

[training]
learning_rte = 0.1
rounds = 0
metrics = ["auc",
  "f2"]
batch_size = 2.5
early_stopping = { patience = true }
optimizer_args = 3
"""
    problems = problems_in(tmp_path, text, "training.schedule=cosin")
    expected = [
        ("line 1, name: ", 'got "bad name"'),
        ("line 2, seed: ", 'expected a whole number, got "7" (text)'),
        ("line 4, data.source: ", "missing"),
        ("line 5, data.task: ", 'Did you mean "binary"?'),
        ("model: ", "table [model] is missing; it must set name"),
        ("line 13, training.rounds: ", "must be at least 1, got 0"),
        ("line 16, training.batch_size: ", "expected a whole number, got 2.5"),
        ("line 18, training.optimizer_args: ", "expected a table of keys, got 3"),
        ("--set training.schedule=cosin, training.schedule: ", 'Did you mean "cosine"?'),
        ("line 14, training.metrics[1]: ", 'unknown metric "f2"'),
        ("line 17, training.early_stopping.patience: ", "expected a whole number, got true"),
        ("line 12, training.learning_rte: ", 'did you mean "learning_rate"?'),
        ("line 8, modl: ", 'did you mean "model"?'),
    ]
    for start, part in expected:
        assert any(line.startswith(start) and part in line for line in problems), (start, part, problems)
    assert len(problems) == len(expected)


def test_a_check_over_two_keys_of_a_section_names_the_section(tmp_path: Path) -> None:
    text = SMALL.replace('path = "rows.csv"', "test_fraction = 0.6\nvalidation_fraction = 0.5")
    (problem,) = problems_in(tmp_path, text)
    assert problem.startswith("line 3, data: test_fraction + validation_fraction is 1.1")


def test_a_key_of_another_section_is_sent_home(tmp_path: Path) -> None:
    (problem,) = problems_in(tmp_path, "learning_rate = 1.0\n" + SMALL)
    assert problem.startswith("line 1, learning_rate: ")
    assert "did you mean training.learning_rate?" in problem


def test_a_key_below_a_value_is_no_key(tmp_path: Path) -> None:
    (problem,) = problems_in(tmp_path, SMALL + "[training.rounds]\nlots = 1\n")
    assert problem.startswith("line 9, training.rounds: expected a whole number, got a table of keys")


@pytest.mark.parametrize(
    ("line", "place", "part"),
    [
        ("rounds 5", "line 9, column 8", "not valid TOML"),
        ("name = mlp2", "line 9, column 8", 'Text needs quotes: name = "mlp2"'),
        ("x = [1, 2", "line 9, at the end", "not valid TOML"),
        ('x = "open', "line 9", "not valid TOML"),
        ('name = "again"', "line 9", "not valid TOML"),
    ],
)
def test_toml_slips_name_their_line(tmp_path: Path, line: str, place: str, part: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(SMALL + line, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config_file.load_scenario(path)
    assert place in caught.value.problems[0]
    assert part in str(caught.value)


def test_bytes_that_are_no_text_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b'name = "a"\n# caf\xe9\n')
    assert problems_of(path) == ["line 2: not valid UTF-8"]


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode() + b"rounds = 3\r\n")
    (problem,) = problems_of(path)
    assert problem.startswith("line 9, model.rounds: ")


def test_missing_file_names_the_nearest(scenario_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean .*small\.toml") as caught:
        config_file.load_scenario(scenario_file.parent / "smal.toml")
    assert "there is no file" in caught.value.problems[0]


def test_a_folder_is_no_scenario(scenario_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"It contains small\.toml"):
        config_file.load_scenario(scenario_file.parent)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_unreadable_file_says_why() -> None:
    # Also root cannot read the first page of a process's memory.
    assert problems_of("/proc/self/mem") == ["cannot read /proc/self/mem: Input/output error"]


def test_a_file_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no file" in problems_of(tmp_path / "none" / "x.toml")[0]


@pytest.mark.parametrize(
    ("scheme", "needs"),
    [
        ("iid", "clients"),
        ("dirichlet", "clients"),
        ("shards", "clients"),
        ("quantity", "clients"),
        ("size", "max_rows"),
    ],
)
def test_a_partition_scheme_names_the_key_that_it_needs(scenario_file: Path, scheme: str, needs: str) -> None:
    (problem,) = problems_of(scenario_file, f"partition.scheme={scheme}")
    assert f'scheme "{scheme}" needs {needs} = <number>' in problem
    assert problem.startswith(f"--set partition.scheme={scheme}, partition: ")
    overrides = [f"partition.scheme={scheme}", f"partition.{needs}=3"]
    assert config_file.load_scenario(scenario_file, overrides).partition.scheme == scheme


def test_builtin_names_and_the_nearest_of_them(scenario_file: Path) -> None:
    builtin = scenario_file.parent
    assert config_file.builtin_names(builtin) == ["small"]
    assert config_file.load_scenario("small", builtin=builtin).name == "small"
    (problem,) = problems_of("smal", builtin=builtin)
    assert 'Did you mean "small"?' in problem
    assert "Built-in scenarios: small." in problem


def test_overrides_are_read_as_toml_or_as_text(scenario_file: Path) -> None:
    scenario = config_file.load_scenario(
        scenario_file,
        [
            "training.learning_rate=1",
            "training.optimizer=adam",
            'training.metrics=["auc", "f1"]',
            "training.early_stopping.patience = 3",
            "data.positive=1",  # a label that looks like a number, for a key that wants text
            "data.args.sep=;",
            'model.args={units = [8, 4], "odd key" = true}',
            "name=2026",
            "output.compare=true",
            "description=a = b",
        ],
    )
    assert scenario.training.learning_rate == 1.0
    assert scenario.training.optimizer == "adam"
    assert scenario.training.metrics == ("auc", "f1")
    assert scenario.training.early_stopping.patience == 3
    assert scenario.data.positive == "1"
    assert scenario.data.args == {"sep": ";"}
    assert scenario.model.args == {"units": [8, 4], "odd key": True}
    assert scenario.name == "2026"
    assert scenario.output.compare is True
    assert scenario.description == "a = b"


def test_the_last_of_two_overrides_holds(scenario_file: Path) -> None:
    scenario = config_file.load_scenario(scenario_file, ["seed=2", "seed=3"])
    assert scenario.seed == 3


@pytest.mark.parametrize(
    ("override", "place", "part"),
    [
        ("nonsense", "--set nonsense: ", "write it as key=value"),
        (
            "training.metrics=[1]",
            "--set training.metrics=[1], training.metrics[0]: ",
            "expected one of accuracy",
        ),
        ("training.metrics=auc", "--set training.metrics=auc, training.metrics: ", "expected a list"),
        ("name=''", "--set name='', name: ", "must not be empty"),
        ("training.decay=nan", "--set training.decay=nan, training.decay: ", "a finite number, got nan"),
        ("=3", "--set =3: ", "write it as key=value"),
        ("a b=3", "--set a b=3: ", "write it as key=value"),
        ("seed.x=1", "--set seed.x=1, seed: ", "expected a whole number, got a table"),
        ("name.x=1", "--set name.x=1: ", "name is a value, not a table of keys"),
        ("training.rouns=1", "--set training.rouns=1, training.rouns: ", 'did you mean "rounds"?'),
        (
            "training.rounds=1\nseed = 3",
            "--set training.rounds=1\nseed = 3, training.rounds: ",
            "expected a whole",
        ),
        ("seed\nx=1", "--set seed\nx=1: ", "write it as key=value"),
    ],
)
def test_a_wrong_override_is_reported_by_its_text(
    scenario_file: Path, override: str, place: str, part: str
) -> None:
    (problem,) = problems_of(scenario_file, override)
    assert problem.startswith(place)
    assert part in problem


def test_an_override_mends_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(SMALL + "\n[training]\nrounds = 0\n", encoding="utf-8")
    assert config_file.load_scenario(path, ["training.rounds=2"]).training.rounds == 2


def test_dump_leaves_out_what_is_none(scenario_file: Path) -> None:
    text = config_file.dump_toml(config_file.load_scenario(scenario_file))
    assert "client_column" not in text
    assert "local_steps" not in text
    assert "[training.early_stopping]" in text


def test_every_choice_of_a_literal_is_accepted_by_name(scenario_file: Path) -> None:
    # `Literal[METRICS, "auto"]` would nest the tuple and accept no metric at all.
    for name in ("accuracy", "auc", "f1", "loss", "mae", "mse", "auto"):
        scenario = config_file.load_scenario(scenario_file, [f"training.monitor={name}"])
        assert scenario.training.monitor == name


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    (problem,) = problems_in(tmp_path, SMALL.replace('"mlp"', str(list(range(100)))))
    assert "..." in problem
    assert len(problem) < 150


def test_scenario_is_frozen(scenario_file: Path) -> None:
    scenario = config_file.load_scenario(scenario_file)
    with pytest.raises(ValueError, match="frozen"):
        scenario.seed = 3  # type: ignore[misc]
    assert isinstance(scenario, Scenario)
