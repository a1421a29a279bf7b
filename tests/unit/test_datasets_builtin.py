"""The built-in data sets hold what their data cards say, and their scenarios load."""

from __future__ import annotations

import pickle
import re
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from shoal.common.config import Scenario
from shoal.common.config.file import BUILTIN_SCENARIOS
from shoal.common.errors import ConfigError, MissingPackageError, UnreadableDataError
from shoal.common.schema import Population
from shoal.simulations import datasets
from shoal.simulations.datasets.loading import package_folder

CARDS = Path(__file__).parents[2] / "docs" / "data"
SCENARIOS = sorted(path.stem for path in BUILTIN_SCENARIOS.glob("*.toml"))
WHOLE = {"scheme": "size", "max_rows": 100_000, "min_rows": 2}  # every site a client, none left out


def scenario(data: dict[str, object], **partition: object) -> Scenario:
    values = {"name": "test", "data": data, "partition": partition, "model": {"name": "mlp"}}
    return Scenario.model_validate(values)


def builtin(name: str) -> Scenario:
    text = (BUILTIN_SCENARIOS / f"{name}.toml").read_text(encoding="utf-8")
    return Scenario.model_validate(tomllib.loads(text))


@pytest.fixture(scope="module")
def whole() -> dict[str, Population]:
    """Every built-in data set, unpartitioned: one client a site."""
    return {name: datasets.load_population(scenario({"source": name}, **WHOLE)) for name in datasets.BUILT_IN}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_loads_and_every_client_fits_the_schema(name: str) -> None:
    loaded = builtin(name)
    assert loaded.name == name
    assert loaded.description
    assert datasets.check(loaded) == []
    population = datasets.load_population(loaded)
    for client in range(len(population)):
        shard = population.shard(client)
        assert shard.rows == population.rows(client) >= loaded.partition.min_rows
        assert set(shard.columns) == {column.name for column in population.schema.columns}
        for column in population.schema.columns:
            assert shard.columns[column.name].shape == (shard.rows, *column.shape)
        if population.schema.classes:
            assert shard.labels.dtype == np.int32
            assert set(shard.labels) <= set(range(population.schema.num_classes))


@pytest.mark.parametrize(
    ("name", "clients", "rows", "task", "kind"),
    [
        ("medical-thyroid", 5, 9_169, "binary", "tabular"),  # 9,172 rows less the 3 of WEST
        ("sentiment-zh", 12, 17_363, "binary", "text"),
        ("wearables", 10, 2_369, "multiclass", "sequence"),
        ("digits", 10, 1_797, "multiclass", "image"),
        ("linear", 10, 1_000, "regression", "tabular"),  # 10 clients of 100
    ],
)
def test_what_a_scenario_holds(name: str, clients: int, rows: int, task: str, kind: str) -> None:
    population = datasets.load_population(builtin(name))
    assert len(population) == clients
    assert sum(map(population.rows, range(clients))) == rows
    assert (population.schema.task, population.schema.kind) == (task, kind)


@pytest.mark.parametrize("name", datasets.BUILT_IN)
def test_a_data_card_says_how_many_rows_there_are(name: str, whole: dict[str, Population]) -> None:
    card = (CARDS / f"{name}.md").read_text(encoding="utf-8")
    for heading in ("| source |", "| licence |", "## Sites", "## Pitfalls"):
        assert heading in card, heading
    population = whole[name]
    if name != "linear":  # has as many as are asked for
        told = re.search(r"^\| rows \| ([\d,]+)", card, re.M)
        assert told is not None
        assert int(told[1].replace(",", "")) == sum(map(population.rows, range(len(population))))


@pytest.mark.parametrize("name", ["thyroid", "lending", "sentiment", "wearables"])
def test_a_data_card_lists_every_site(name: str, whole: dict[str, Population]) -> None:
    # | site | rows | or | site | rows | positives | positive % |
    card = (CARDS / f"{name}.md").read_text(encoding="utf-8").partition("## Sites")[2]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*$", card, re.M)
    ]
    told = {cells[0]: [float(cell.replace(",", "")) for cell in cells[1:]] for cells in lines[2:]}
    population = whole[name]
    held = {}
    for client in range(len(population)):
        labels = population.shard(client).labels
        held[population.name(client)] = [len(labels)]
        if population.schema.task == "binary":
            positives = int(labels.sum())
            held[population.name(client)] += [positives, round(100 * positives / len(labels), 1)]
    assert told == held


def test_thyroid_has_no_leakage_and_no_impossible_ages(whole: dict[str, Population]) -> None:
    schema = whole["thyroid"].schema
    assert schema.classes == ("healthy", "sick")
    names = {column.name for column in schema.columns}
    assert not names & {"patient_id", "target", "referral_source", "diagnosis"}
    kinds = {column.name: column.kind for column in schema.columns}
    assert (kinds["TSH_measured"], kinds["sex"], kinds["TBG"]) == ("categorical", "categorical", "numeric")
    shards = [whole["thyroid"].shard(client) for client in range(len(whole["thyroid"]))]
    ages = np.concatenate([shard.columns["age"] for shard in shards])
    assert np.nanmax(ages) == 97
    assert np.isnan(ages).sum() == 4  # 455, 65511, 65512 and 65526 years
    sexes = np.concatenate([shard.columns["sex"] for shard in shards])
    assert set(sexes) == {"F", "M", None}
    assert sum(sex is None for sex in sexes) == 307


def test_sentiment_has_each_text_once(whole: dict[str, Population]) -> None:
    shards = [whole["sentiment"].shard(client) for client in range(3)]
    texts = np.concatenate([shard.columns["text"] for shard in shards])
    assert len(set(texts)) == len(texts) == 17_363
    assert whole["sentiment"].schema.classes == ("negative", "positive")


def test_images_and_windows_have_the_ranges_that_models_expect(whole: dict[str, Population]) -> None:
    images = whole["digits"].shard(0).columns["image"]
    assert (images.dtype, images.shape[1:]) == (np.float32, (8, 8, 1))
    assert (images.min(), images.max()) == (0, 1)
    windows = whole["wearables"].shard(0).columns["motion"]
    assert (windows.dtype, windows.shape[1:]) == (np.float32, (100, 6))
    assert whole["wearables"].schema.classes == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")


def test_a_million_linear_clients_cost_nothing_to_make() -> None:
    start = time.perf_counter()
    population = datasets.load_population(scenario({"source": "linear"}, clients=1_000_000))
    size = len(pickle.dumps(population))
    assert time.perf_counter() - start < 1  # drawing a client's rows takes 50 µs: all would take a minute
    assert size < 1_000
    assert (len(population), population.rows(999_999)) == (1_000_000, 100)


def test_linear_clients_see_shifted_parts_of_the_range() -> None:
    population = datasets.load_population(scenario({"source": "linear"}, clients=11))
    for client in range(11):  # lower ends go from 0 to 10 - 5 in ten steps of 0.5
        x = population.shard(client).columns["x"]
        assert 0.5 * client <= x.min() <= x.max() <= 0.5 * client + 5
    again = population.shard(3)
    assert np.array_equal(again.columns["x"], population.shard(3).columns["x"])
    assert not np.array_equal(again.columns["x"] - 1.5, population.shard(0).columns["x"])
    x = np.concatenate([population.shard(i).columns["x"] for i in range(11)])
    y = np.concatenate([population.shard(i).labels for i in range(11)])
    residual = y - (2 + 3 * x)
    # 1,100 draws of N(0, 0.5²): the mean has a deviation of 0.015, the deviation one of 0.011.
    assert abs(residual.mean()) < 0.06
    assert abs(residual.std() - 0.5) < 0.045
    with pytest.raises(IndexError):
        population.shard(11)


@pytest.mark.parametrize("args", [{"rows": 9}, {"rows": 10.5}, {"width": 0}, {"width": 11}])
def test_linear_refuses_arguments_out_of_range(args: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"data.args.{next(iter(args))}"):
        datasets.load_population(scenario({"source": "linear", "args": args}))


def test_a_population_pickles_with_its_buffers(whole: dict[str, Population]) -> None:
    for name in ("thyroid", "sentiment", "wearables"):
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(whole[name], protocol=5, buffer_callback=buffers.append)
        carried = sum(buffer.raw().nbytes for buffer in buffers)
        assert len(data) < carried / 20  # rows travel as buffers, which Ray shares without a copy
        again = pickle.loads(data, buffers=buffers)
        one, other = whole[name].shard(1), again.shard(1)
        assert np.array_equal(one.labels, other.labels)
        for column in one.columns:
            np.testing.assert_array_equal(one.columns[column], other.columns[column])


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(MissingPackageError, match=re.escape("pip install 'shoal[finance-lending]'")):
        package_folder("no_such_package_of_data", "finance-lending")


def test_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((CARDS.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {source.extra for source in datasets.BUILT_IN.values()} - {None}
    assert extras == set(project["optional-dependencies"])
    for name, source in datasets.BUILT_IN.items():
        if source.extra:
            card = (CARDS / f"{name}.md").read_text(encoding="utf-8")
            assert f"pip install 'shoal[{source.extra}]'" in card


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"source": "thyriod"}, 'unknown data source "thyriod". Did you mean "thyroid"?'),
        ({"source": "thyroid", "label": "x"}, "data.label"),
        ({"source": "digits", "include": ["x"]}, "data.include"),
        ({"source": "linear", "args": {"row": 5}}, 'Did you mean "rows"?'),
        ({"source": "digits", "args": {"row": 5}}, 'takes no arguments: remove "row"'),
        ({"source": "csv", "label": "x"}, "data.path"),
        ({"source": "csv", "path": "x.csv"}, "data.label"),
        ({"source": "npz", "path": "x.npz", "client_column": "c"}, "data.client_column"),
        ({"source": "images", "path": "x", "args": {"greyscale": True}}, 'Did you mean "grayscale"?'),
        ({"source": "my module:f"}, "package.module:function"),
        ({"source": "module:"}, "package.module:function"),
    ],
)
def test_problems_are_found_without_loading(data: dict[str, object], problem: str) -> None:
    loaded = scenario(data)
    found = datasets.check(loaded)
    assert len(found) == 1
    assert problem in found[0]
    with pytest.raises(ConfigError):
        datasets.load_population(loaded)


def test_the_own_data_page_names_every_source_and_argument() -> None:
    page = (CARDS / "own-data.md").read_text(encoding="utf-8")
    for name, source in datasets.FILES.items():
        assert f'"{name}"' in page
        for argument in source.args:
            assert argument in page


def test_natural_sites_are_needed_for_natural_clients() -> None:
    with pytest.raises(ConfigError, match=r"natural.*needs sites"):
        datasets.load_population(scenario({"source": "digits"}))


def test_a_file_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UnreadableDataError, match=r"did you mean .*patients\.csv"):
        datasets.load_population(
            scenario({"source": "csv", "path": str(tmp_path / "patient.csv"), "label": "b"})
        )
