"""The user's own data: every format is read, and what cannot be read is told without a row's content."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from shoal.common.config import Scenario
from shoal.common.errors import ConfigError, DataError, ShoalError, SingleClassError, UnreadableDataError
from shoal.common.schema import Population
from shoal.simulations import datasets

ROWS = "site,age,sex,dose,died\n" + "".join(
    f"{'north' if i % 3 else 'south'},{20 + i},{'FM'[i % 2]},{'' if i == 4 else i / 2},"
    f"{'yes' if i % 4 else 'no'}\n"
    for i in range(30)
)
SECRET = "hunter2"  # stands in rows that cannot be read; no message may show it


def load(
    source: str, path: Path | None, *, min_rows: int = 2, clients: int | None = None, **data: object
) -> Population:
    data |= {"source": source} | ({} if path is None else {"path": str(path)})
    scheme = {"scheme": "iid", "clients": clients} if clients else {}
    values = {
        "name": "t",
        "data": data,
        "partition": {"min_rows": min_rows} | scheme,
        "model": {"name": "mlp"},
    }
    return datasets.load_population(Scenario.model_validate(values))


def refused(kind: type[ShoalError], *args: object, **kwargs: object) -> str:
    with pytest.raises(kind) as caught:
        load(*args, **kwargs)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)
    return str(caught.value)


def csv(folder: Path, text: str | bytes = ROWS, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv_with_a_client_column(tmp_path: Path) -> None:
    population = load("csv", csv(tmp_path), client_column="site", label="died", positive="yes")
    schema = population.schema
    assert [(c.name, c.kind) for c in schema.columns] == [
        ("age", "numeric"), ("sex", "categorical"), ("dose", "numeric"),
    ]  # fmt: skip
    assert (schema.task, schema.classes, schema.label) == ("binary", ("no", "yes"), "died")
    # 30 rows, of which every third is of the south: the larger site comes first
    assert [(population.name(i), population.rows(i)) for i in range(2)] == [("north", 20), ("south", 10)]
    south = population.shard(1)
    assert south.columns["age"].tolist() == [20.0 + i for i in range(0, 30, 3)]
    assert south.columns["sex"].tolist() == ["FM"[i % 2] for i in range(0, 30, 3)]
    assert south.labels.tolist() == [int(i % 4 != 0) for i in range(0, 30, 3)]
    north = population.shard(0)
    assert np.flatnonzero(np.isnan(north.columns["dose"])).tolist() == [2]  # row 4 is north's third: 1, 2, 4


def test_parquet_csv_gz_and_tsv_hold_the_same(tmp_path: Path) -> None:
    expected = load("csv", csv(tmp_path), client_column="site", label="died")
    parquet.write_table(arrow_csv.read_csv(tmp_path / "rows.csv"), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(ROWS.encode()))
    csv(tmp_path, ROWS.replace(",", "\t"), "rows.tsv")
    csv(tmp_path, b"\xef\xbb\xbf" + ROWS.replace(",", ";").encode(), "semicolon.csv")
    for source, name, args in (
        ("parquet", "rows.parquet", {}),
        ("csv", "rows.csv.gz", {}),
        ("csv", "rows.tsv", {}),
        ("csv", "semicolon.csv", {"delimiter": ";"}),
    ):
        found = load(source, tmp_path / name, client_column="site", label="died", args=args)
        for client in range(2):
            assert found.schema == expected.schema
            for column, values in expected.shard(client).columns.items():
                np.testing.assert_array_equal(found.shard(client).columns[column], values)


def test_a_folder_of_one_file_a_client(tmp_path: Path) -> None:
    csv(tmp_path, "x,y\n" + "1,a\n2,b\n" * 3, "clinic-1.csv")
    csv(tmp_path, "y,x\n" + "a,1.5\nb,\n" * 2, "clinic-2.csv")  # another order, other number types
    csv(tmp_path, "x,y\n" + ",a\n,b\n" * 2, "clinic-3.csv")  # a column that is empty here only
    population = load("csv", tmp_path, label="y")
    assert {population.name(i): population.rows(i) for i in range(3)} == {
        "clinic-1": 6, "clinic-2": 4, "clinic-3": 4,
    }  # fmt: skip
    assert [c.name for c in population.schema.columns] == ["x"]  # the file's name is no input
    assert population.shard(1).columns["x"][0] == 1.5


def test_include_exclude_and_text(tmp_path: Path) -> None:
    path = csv(tmp_path)
    kept = load("csv", path, clients=2, label="died", exclude=("site", "sex"))
    assert [c.name for c in kept.schema.columns] == ["age", "dose"]
    kept = load("csv", path, clients=2, label="died", include=("sex", "age"))
    assert [c.name for c in kept.schema.columns] == ["age", "sex"]
    text = csv(tmp_path, "note,died\n" + '"one, two",no\n,yes\n' * 4, "text.csv")
    population = load("csv", text, clients=2, label="died", text_column="note")
    assert [(c.name, c.kind) for c in population.schema.columns] == [("note", "text")]
    assert set(np.concatenate([population.shard(i).columns["note"] for i in range(2)])) == {"one, two", ""}


def test_kinds_and_missing_texts_can_be_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "zip,dose,y\n" + "01234,?,a\n98765, 2.5 ,b\n" * 4)
    population = load(
        "csv",
        path,
        clients=2,
        label="y",
        args={"categorical": ["zip"], "numeric": ["dose"], "missing": ["?"]},
    )
    kinds = {c.name: c.kind for c in population.schema.columns}
    assert kinds == {"zip": "categorical", "dose": "numeric"}
    doses = np.concatenate([population.shard(i).columns["dose"] for i in range(2)])
    assert np.isnan(doses).sum() == 4
    assert np.nanmax(doses) == 2.5
    path = csv(tmp_path, f"dose,y\n1,a\n2,b\n{SECRET},a\n3,b\n")
    message = refused(UnreadableDataError, "csv", path, clients=2, label="y", args={"numeric": ["dose"]})
    assert "1 of 4 rows have no number" in message
    assert "row 3 after the header" in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x,y\n1,a\n2,SECRET,b\n3,a\n", 3),
        ("x,y\n1,a\n\n\n2,SECRET,b\n3,a\n", 5),  # empty lines count as lines
        ('x,y\n1,"a\na"\n2,SECRET,b\n', 4),  # as do those inside a text
        ("x,y\nSECRET\n3,a\n", 2),
        ('x,y\n1,a\n2,"SECRET\n3,a\n4,b\n', 3),  # a quote without an end
    ],
)
def test_a_csv_line_that_cannot_be_read_is_reported_by_number(tmp_path: Path, text: str, line: int) -> None:
    path = csv(tmp_path, text.replace("SECRET", SECRET))
    message = refused(UnreadableDataError, "csv", path, clients=2, label="y")
    assert f"rows.csv, line {line}:" in message


def test_a_quote_inside_a_text_is_no_open_quote(tmp_path: Path) -> None:
    path = csv(tmp_path, 'x,y\n5" pipe,a\n6 pipe,b\n7 pipe,a\n8 pipe,b\n')
    assert sum(map(load("csv", path, clients=2, label="y").rows, range(2))) == 4


def test_another_encoding_is_reported_by_line_and_can_be_named(tmp_path: Path) -> None:
    path = csv(tmp_path, ("词,y\n" + "好,a\n坏,b\n" * 4).encode("gbk"))
    told = refused(UnreadableDataError, "csv", path, clients=2, label="y", args={"encoding": "utf-8"})
    assert "line 1: not valid UTF-8" in told
    for args in ({"encoding": "gbk"}, {}):
        population = load("csv", path, clients=2, label="y", args=args)
        assert population.schema.columns[0].name == "词"
    assert "was read as gbk, a guess" in population.notes[0]  # type: ignore[attr-defined]
    path = csv(tmp_path, b"x,y\n1,a\n2,\xff\n")
    told = refused(UnreadableDataError, "csv", path, clients=2, label="y", args={"encoding": "utf-8"})
    assert "line 3: not valid UTF-8" in told
    message = refused(ConfigError, "csv", path, label="y", args={"encoding": "utf-88", "delimiter": "::"})
    assert "data.args.encoding" in message
    assert "data.args.delimiter" in message


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("", UnreadableDataError, "is empty"),
        ("x,y\n", UnreadableDataError, "contains no rows"),
        ("x,x,y\n1,2,a\n", UnreadableDataError, "the name of column 2 occurs before"),
        ("x;y\n1;a\n", ConfigError, "data.args.delimiter"),
        ("x,why\n1,a\n", ConfigError, 'unknown column "y"'),
        ("y\na\nb\n", DataError, "no input columns are left"),
        ("x,y\n1,hunter2\n2,hunter2\n", SingleClassError, 'same label in "y"'),
        ("x,y\n1,a\n2,\n3,b\n", DataError, '1 of 3 rows have no label in "y"'),
        ("x,y\n2024-01-31,a\n2024-02-01,b\n", ConfigError, 'exclude = ["x"]'),
        ("x,y\ninf,a\n2,b\n", DataError, '1 of 2 rows have an infinite number in column "x"'),
    ],
)
def test_csv_that_cannot_be_used(tmp_path: Path, text: str, kind: type[ShoalError], told: str) -> None:
    assert told in refused(kind, "csv", csv(tmp_path, text), clients=2, label="y")


def test_unknown_columns_are_reported_with_the_nearest(tmp_path: Path) -> None:
    path = csv(tmp_path)
    message = refused(ConfigError, "csv", path, label="dyed", client_column="sight", text_column="agee")
    for near in ("died", "site", "age"):
        assert f'Did you mean "{near}"?' in message
    assert 'Did you mean "dose"?' in refused(ConfigError, "csv", path, label="died", exclude=("doses",))
    assert "data.args.numeric" in refused(ConfigError, "csv", path, label="died", args={"numeric": ["agee"]})
    assert "data.args.numeric" in refused(ConfigError, "csv", path, label="died", args={"numeric": "age"})


def test_folders_whose_files_do_not_fit(tmp_path: Path) -> None:
    assert "contains no file that ends in .csv" in refused(UnreadableDataError, "csv", tmp_path, label="y")
    csv(tmp_path, "x,y\n1,a\n", "a.csv")
    csv(tmp_path, "z,y\n1,a\n", "b.csv")
    assert "differ in 2 of their columns" in refused(UnreadableDataError, "csv", tmp_path, label="y")
    csv(tmp_path, f"x,y\n{SECRET},b\n", "b.csv")
    assert '"x" holds numbers but for 1 of 2 values' in refused(ConfigError, "csv", tmp_path, label="y")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    other = csv(tmp_path, SECRET.encode(), "rows.parquet")
    assert "as Parquet" in refused(UnreadableDataError, "parquet", other, label="y")
    assert "as .npz" in refused(UnreadableDataError, "npz", other)
    assert "expected a folder" in refused(UnreadableDataError, "images", other)
    assert "expected a file" in refused(UnreadableDataError, "npz", tmp_path)


# Labels and tasks


@pytest.mark.parametrize(
    ("labels", "config", "task", "classes"),
    [
        (["b", "a", "b"], {}, "binary", ("a", "b")),
        (["b", "a", "c"], {}, "multiclass", ("a", "b", "c")),
        (["b", "a", "c"], {"positive": "c"}, "binary", ("not c", "c")),
        (["b", "a", "b"], {"positive": "a"}, "binary", ("b", "a")),
        (["b", "a", "b"], {"task": "multiclass"}, "multiclass", ("a", "b")),
        ([True, False, True], {}, "binary", ("false", "true")),
        ([2, 0, 10], {}, "multiclass", ("0", "2", "10")),  # in the order of numbers, not of texts
        ([1.0, 0.0, 1.0], {}, "binary", ("0", "1")),
        ([1.0, 0.0, 1.0], {"positive": "0"}, "binary", ("1", "0")),
        ([0.5, 1.5, 2.5], {}, "regression", ()),
        ([2, 0, 10], {"task": "regression"}, "regression", ()),
    ],
)
def test_the_task_is_read_from_the_labels(
    tmp_path: Path, labels: list[object], config: dict[str, object], task: str, classes: tuple[str, ...]
) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"x": [1.0, 2.0, 3.0] * 4, "y": labels * 4}), path)
    population = load("parquet", path, clients=1, label="y", **config)
    assert (population.schema.task, population.schema.classes) == (task, classes)
    found = population.shard(0).labels
    if task == "regression":
        assert found.dtype == np.float32
        assert sorted(found) == sorted(float(str(v)) for v in labels * 4)
    else:
        texts = [str(v).lower().removesuffix(".0") for v in labels]
        wanted = [classes.index(text) if text in classes else 0 for text in texts]
        assert sorted(found) == sorted(wanted * 4)


@pytest.mark.parametrize(
    ("labels", "config", "kind", "told"),
    [
        (["a", "b", "c"], {"task": "binary"}, ConfigError, "3 classes: set data.positive to one"),
        (["aa", "bb", "cc"], {"positive": "ab"}, ConfigError, 'Did you mean "'),
        (["a", "a", "a"], {"positive": "a"}, SingleClassError, 'every row has the label "a"'),
        ([SECRET, "b", "c"], {"task": "regression"}, DataError, "12 of 12 rows have no number"),
        ([1.0, float("nan"), 2.0], {}, DataError, "4 of 12 rows have no label"),
        ([1.5, float("inf"), 2.0], {}, DataError, "4 of 12 rows have an infinite label"),
        ([1.5, 1.5, 1.5], {"task": "regression"}, SingleClassError, "same value"),
        (
            list(range(3000)),
            {"task": "multiclass"},
            DataError,
            "3000 distinct labels; classification allows at most 1000",
        ),
    ],
)
def test_labels_that_cannot_be_learnt(
    tmp_path: Path, labels: list[object], config: dict[str, object], kind: type[ShoalError], told: str
) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"x": np.arange(4.0 * len(labels)), "y": labels * 4}), path)
    assert told in refused(kind, "parquet", path, clients=1, label="y", **config)


# Arrays


@pytest.mark.parametrize(
    ("shape", "kind", "dtype"),
    [((12, 3), "tabular", float), ((12, 5, 2), "sequence", np.float32), ((12, 4, 4, 3), "image", np.uint8)],
)
def test_npz(tmp_path: Path, shape: tuple[int, ...], kind: str, dtype: type) -> None:
    x = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8 if kind == "image" else np.float64)
    path = tmp_path / "a.npz"
    np.savez(path, x=x, y=np.arange(12) % 2, clients=np.repeat([7, 8], 6))
    population = load("npz", path)
    assert population.schema.kind == kind
    assert [population.name(i) for i in range(2)] == ["7", "8"]
    shard = population.shard(1)
    columns = [shard.columns[c.name] for c in population.schema.columns]
    assert all(column.dtype == dtype for column in columns)
    found = np.stack(columns, axis=1) if kind == "tabular" else columns[0]
    np.testing.assert_array_equal(found, x[6:])


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": np.zeros((4, 2))}, "lacks the array y; it contains x"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(3)}, "equal first dimensions"),
        ({"x": np.zeros(4), "y": np.zeros(4)}, "x has shape (4,)"),
        ({"x": np.zeros(()), "y": np.zeros(4)}, "one entry per row"),
        ({"x": np.array([["a"], ["b"]]), "y": np.arange(2)}, "expected numbers"),
        ({"x": np.array([[object()]]), "y": np.arange(1)}, "without Python objects"),
        ({"x": np.full((4, 2, 2), np.nan), "y": np.arange(4) % 2}, '4 of 4 rows of "x"'),
    ],
)
def test_npz_that_cannot_be_used(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    assert told in refused(DataError, "npz", tmp_path / "a.npz", clients=1)


# Folders


def test_text_folders(tmp_path: Path) -> None:
    for i in range(12):
        folder = tmp_path / f"site-{i % 2}" / ("good" if i % 3 else "bad")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(f"文 {i}", encoding="utf-8")
    population = load("text", tmp_path)
    assert (population.schema.kind, population.schema.classes) == ("text", ("bad", "good"))
    assert sorted(population.shard(0).columns["text"]) == sorted(f"文 {i}" for i in range(0, 12, 2))
    (tmp_path / "site-0" / "good" / "x.txt").write_bytes(SECRET.encode() + b"\xff")
    assert "x.txt, line 1: not valid UTF-8" in refused(UnreadableDataError, "text", tmp_path)


def test_image_folders(tmp_path: Path) -> None:
    for i in range(12):
        folder = tmp_path / f"site-{i % 2}" / ("cat" if i % 3 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 6), (i, 0, 200)).save(folder / f"{i:02}.png")
    population = load("images", tmp_path)
    shard = population.shard(0)
    assert population.schema.columns[0].shape == (6, 10, 3)
    assert (shard.columns["image"].dtype, population.schema.classes) == (np.uint8, ("cat", "dog"))
    # Labels and pictures stay together: the red channel holds the number that the label was made from.
    numbers = shard.columns["image"][:, 0, 0, 0]
    assert [int(n % 3 == 0) for n in numbers] == shard.labels.tolist()
    gray = load("images", tmp_path, args={"size": 4, "grayscale": True})
    assert gray.schema.columns[0].shape == (4, 4, 1)

    Image.new("RGB", (9, 9)).save(tmp_path / "site-1" / "cat" / "odd.png")
    assert "e.g. size = 64" in refused(ConfigError, "images", tmp_path)
    (tmp_path / "site-1" / "cat" / "zz.png").write_bytes(SECRET.encode())
    assert "zz.png cannot be read as an image" in refused(
        UnreadableDataError, "images", tmp_path, args={"size": 4}
    )
    assert "data.args.size" in refused(ConfigError, "images", tmp_path, args={"size": "4"})
    (tmp_path / "empty").mkdir()
    assert "site/label/*.png" in refused(UnreadableDataError, "images", tmp_path / "empty")


# Functions

FUNCTIONS = f"""
import numpy as np
from shoal.common.schema import Column, Schema

def columns(rows=12):
    x = np.arange(float(rows))
    names = np.array([None, "b", "a"] * (rows // 3), object)
    return {{"label": x, "word": names}}, x % 2 == 0, ["s1", "s2"] * (rows // 2)

def image():
    return {{"scan": np.zeros((12, 4, 4, 1), np.uint8)}}, np.arange(12) % 2, None

def array():
    return np.zeros((12, 2)), np.arange(12) % 2, np.repeat(["s1", "s2"], 6)

def lengths():
    return {{"x": np.zeros(3)}}, np.zeros(4), None

def mixed():
    return {{"x": np.array([1, "{SECRET}"], object)}}, np.arange(2), None

def both():
    return {{"x": np.zeros((2, 3, 1)), "z": np.zeros(2)}}, np.arange(2), None

def nothing():
    return None

class Own:
    def __init__(self, clients):
        self.clients = clients
    schema = Schema((Column("x", "numeric"),), "binary", ("no", "yes"), "y")
    def __len__(self):
        return self.clients
    def name(self, client):
        return str(client)
    rows = shard = name
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "functions_of_mine.py").write_text(FUNCTIONS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "functions_of_mine", raising=False)
    return "functions_of_mine"


def test_a_function_of_the_users_own(functions: str) -> None:
    population = load(f"{functions}:columns", None, args={"rows": 18})
    assert [(c.name, c.kind) for c in population.schema.columns] == [
        ("label", "numeric"), ("word", "categorical"),
    ]  # fmt: skip
    assert [(population.name(i), population.rows(i)) for i in range(2)] == [("s1", 9), ("s2", 9)]
    shard = population.shard(1)
    assert shard.columns["label"].tolist() == list(range(1, 18, 2))
    assert shard.columns["word"][:3].tolist() == ["b", None, "a"]
    assert shard.labels.tolist() == [0] * 9  # s2 has the odd numbers
    assert load(f"{functions}:image", None, clients=2).schema.columns[0].name == "scan"
    assert load(f"{functions}:array", None).name(1) == "s2"
    assert len(load(f"{functions}:Own", None, args={"clients": 5})) == 5


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("lengths", DataError, "different lengths: x 3, the labels 4"),
        ("mixed", DataError, "mixed or unknown types"),
        ("both", DataError, "several dimensions: it must be the only one"),
        ("nothing", DataError, "returned NoneType; expected a data frame"),
        ("absent", ConfigError, "cannot be loaded"),
    ],
)
def test_a_function_that_does_not_fit(functions: str, name: str, kind: type[ShoalError], told: str) -> None:
    assert told in refused(kind, f"{functions}:{name}", None, clients=2)


def test_a_text_column_of_a_function(functions: str) -> None:
    population = load(f"{functions}:columns", None, text_column="word")
    assert population.schema.kind == "text"
    assert population.shard(0).columns["word"].tolist().count("") == 2  # numbers 0 and 6 have none
    assert 'Did you mean "word"?' in refused(ConfigError, f"{functions}:columns", None, text_column="wort")


def test_rows_that_name_no_site_are_a_client(tmp_path: Path) -> None:
    path = csv(tmp_path, "site,x,y\n" + "a,1,p\n,2,q\n" * 3)
    population = load("csv", path, client_column="site", label="y")
    assert sorted(population.name(i) for i in range(2)) == ["(none)", "a"]
