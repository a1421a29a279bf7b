"""The user's own files, from the first scenario to predictions for new rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv as csv
import pytest

from shoal.cli import main
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError, DataError, RunError, ShoalError, UnreadableDataError
from shoal.common.schema import Population
from shoal.simulations import datasets
from shoal.simulations.predict import predict

SCENARIO = """
name = "mine"
[data]
source = "{source}"
path = "{path}"
{more}
[partition]
min_rows = 5
[model]
name = "{model}"
[training]
rounds = 2
[resources]
backend = "serial"
[output]
directory = "{runs}"
bootstrap = 10
"""


def write_scenario(folder: Path, source: str, path: str, more: str = "", model: str = "logistic") -> Path:
    file = folder / "mine.toml"
    file.write_text(SCENARIO.format(source=source, path=path, more=more, model=model, runs=folder / "runs"))
    return file


def load(folder: Path, source: str, path: str, more: str = "") -> Population:
    return datasets.load_population(load_scenario(write_scenario(folder, source, path, more)))


def write_patients(file: Path, rows: int = 120, hospital: str | None = None) -> None:
    rng = np.random.default_rng(rows)
    age, dose = rng.normal(60, 10, rows), rng.normal(5, 2, rows)
    lines = ["hospital,age,dose,sex,outcome"]
    for i in range(rows):
        site = hospital or f"h{i % 3}"
        sick = "sick" if age[i] + 5 * dose[i] > 85 else "well"
        value = "" if i % 11 == 0 else f"{dose[i]:.3f}"
        lines.append(f"{site},{age[i]:.1f},{value},{'FM'[i % 2]},{sick}")
    file.write_text("\n".join(lines) + "\n")


COLUMNS = 'client_column = "hospital"\nlabel = "outcome"\npositive = "sick"'


def test_csv_from_validation_to_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_patients(tmp_path / "patients.csv")
    file = write_scenario(tmp_path, "csv", "patients.csv", COLUMNS)
    with pytest.raises(SystemExit) as left:
        main(["validate", str(file)])
    assert not left.value.code
    with pytest.raises(SystemExit) as left:
        main(["run", str(file), "--quiet"])
    assert not left.value.code
    run = next((tmp_path / "runs").iterdir())
    found = predict(run, tmp_path / "patients.csv", tmp_path / "out.csv")
    assert found.column_names == ["prediction", "probability of well", "probability of sick"]
    assert found.num_rows == 120
    chances = np.asarray(found["probability of sick"])
    assert ((chances >= 0) & (chances <= 1)).all()
    assert csv.read_csv(tmp_path / "out.csv").num_rows == 120
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(["predict", str(run), str(tmp_path / "nothing.csv")])
    assert left.value.code == UnreadableDataError.exit_code
    assert "nothing.csv" in capsys.readouterr().err
    (tmp_path / "none.csv").write_text("age,dose,sex\n")
    assert predict(run, tmp_path / "none.csv", None).num_rows == 0
    (tmp_path / "few.csv").write_text("age,dosis,sex\n50,1,F\n")
    with pytest.raises(DataError, match=r'"dose" among the 3 columns\. Did you mean "dosis"'):
        predict(run, tmp_path / "few.csv", None)
    (tmp_path / "words.csv").write_text("age,dose,sex\nancient,1,F\n")
    with pytest.raises(DataError, match='1 of 1 rows have no number in column "age"') as caught:
        predict(run, tmp_path / "words.csv", None)
    assert "ancient" not in str(caught.value)
    with pytest.raises(RunError, match=r"model\.keras|schema\.json"):
        predict(tmp_path, tmp_path / "patients.csv", None)


def test_a_folder_of_one_file_a_client(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    for site, rows in (("north", 30), ("south", 50)):
        write_patients(tmp_path / "sites" / f"{site}.csv", rows, hospital="x")
    population = load(tmp_path, "csv", "sites", 'label = "outcome"')
    assert {population.name(i): population.rows(i) for i in range(len(population))} == {
        "north": 30,
        "south": 50,
    }


def test_arrays_with_clients(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(60, 20, 2)), y=y, clients=np.repeat(["a", "b"], 30))
    population = load(tmp_path, "npz", "a.npz")
    assert population.schema.kind == "sequence"
    assert population.schema.task == "multiclass"
    assert [population.rows(i) for i in range(2)] == [30, 30]
    assert np.array_equal(np.concatenate([population.shard(i).labels for i in range(2)]), y)


def test_a_folder_of_texts(tmp_path: Path) -> None:
    for site in ("a", "b"):
        for label in ("good", "bad"):
            folder = tmp_path / "texts" / site / label
            folder.mkdir(parents=True)
            for i in range(6):
                (folder / f"{i}.txt").write_text(f"{label} 服务 {i}", encoding="utf-8")
    population = load(tmp_path, "text", "texts")
    assert population.schema.kind == "text"
    assert population.schema.classes == ("bad", "good")
    assert [population.rows(i) for i in range(2)] == [12, 12]
    assert "服务" in population.shard(0).columns["text"][0]


def test_a_function_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rows.py").write_text(
        "import numpy as np\n"
        "def rows(n):\n"
        "    rng = np.random.default_rng(0)\n"
        "    x = rng.normal(size=n)\n"
        "    return {'x': x}, (x > 0).astype(int), np.repeat(['a', 'b'], n // 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "own.toml"
    file.write_text(
        'name = "own"\n[data]\nsource = "my_rows:rows"\nargs = { n = 40 }\n[model]\nname = "logistic"\n'
    )
    population = datasets.load_population(load_scenario(file))
    assert [population.rows(i) for i in range(2)] == [20, 20]
    assert population.schema.task == "binary"


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        ("a,b\n1,2\n3,4,5\n6,7\n", 'label = "b"', "line 3"),
        ("a,b\n1,2\n", 'label = "bb"', 'Did you mean "b"'),
        ("a,b\n1,x\n2,\n3,y\n", 'label = "b"', "1 of 3 rows have no label"),
        ("a,b\n1,x\n2,x\n3,x\n", 'label = "b"', "one class|same label|single"),
        ("a,b\n", 'label = "b"', "no rows"),
    ],
    ids=["ragged", "unknown label", "missing label", "one class", "empty"],
)
def test_unusable_files_are_refused_in_words(tmp_path: Path, content: str, more: str, says: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(ShoalError, match=says):
        load(tmp_path, "csv", "bad.csv", more)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises((UnreadableDataError, ConfigError), match=r"no-such\.csv"):
        load(tmp_path, "csv", "no-such.csv", 'label = "b"')
