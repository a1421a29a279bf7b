"""One reading of a table: simulation, pilot and prediction see the same bits, and each row for itself."""

from __future__ import annotations

import csv
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from shoal.clients.pilot.site_data import load_site
from shoal.common.config import Scenario
from shoal.common.errors import ShoalError
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.reading import read_columns, read_table
from shoal.simulations import datasets
from shoal.simulations.datasets.site_files import write_sites

ROWS = 40
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "gb18030")
MISSING = ("", "NA", "nan", "NULL", " ", "?")


@dataclass(frozen=True)
class Table:
    """A random table as a file would hold it: the arguments of its format, and its rows as text."""

    args: dict[str, Any]
    head: list[str]
    rows: list[list[str]]

    def content(self, rows: list[list[str]]) -> bytes:
        out = io.StringIO()
        csv.writer(out, delimiter=self.args["delimiter"], lineterminator="\n").writerows([self.head, *rows])
        return out.getvalue().encode(self.args["encoding"])


def numbers(decimal: str) -> st.SearchStrategy[str]:
    floats = st.floats(allow_nan=False, allow_infinity=False, width=64)
    written = st.one_of(
        floats.map(repr),
        floats.map(lambda value: f"{value:.3e}"),
        st.integers(-(10**14), 10**14).map(str),
        st.decimals(-1000, 1000, places=3).map(str),
    )
    return written.map(lambda text: text.replace(".", decimal))


def texts() -> st.SearchStrategy[str]:
    letters = st.characters(codec="gb18030", exclude_categories=("Cs", "Cc", "Zl", "Zp"))
    return st.text(letters, min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    decimal = draw(st.sampled_from([".", ","]))
    args = {
        "delimiter": draw(st.sampled_from([";", "\t", "|"])),
        "encoding": draw(st.sampled_from(ENCODINGS)),
        "decimal": decimal,
        "missing": ["?"],
    }
    columns: dict[str, list[str]] = {}
    rng = draw(st.randoms(use_true_random=False))
    for i in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            pool = draw(st.lists(numbers(decimal), min_size=5, max_size=ROWS))
        else:
            pool = draw(
                st.lists(
                    st.one_of(texts(), st.sampled_from(["007", "1", "1.0", "true"])), min_size=2, max_size=4
                )
            )
        pool += draw(st.lists(st.sampled_from(MISSING), max_size=2))
        columns[draw(texts()).strip() + f" {i}x"] = [rng.choice(pool) for _ in range(ROWS)]
    columns["site"] = [rng.choice("ABC") for _ in range(ROWS)]
    columns["y"] = [("no", "yes")[i % 2] for i in range(ROWS)]
    return Table(args, list(columns), [list(row) for row in zip(*columns.values(), strict=True)])


def scenario(path: Path, args: dict[str, Any]) -> Scenario:
    data = {"source": "csv", "path": str(path), "client_column": "site", "label": "y", "args": args}
    return Scenario.model_validate(
        {"name": "t", "data": data, "model": {"name": "mlp"}, "partition": {"min_rows": 2}}
    )


def same(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two columns have the same bits, or the same texts."""
    if one.dtype == object:
        return one.tolist() == two.tolist()
    return one.tobytes() == two.tobytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=tables(), some=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=3))
def test_simulation_pilot_and_prediction_read_the_same_rows(drawn: Table, some: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "rows.csv"
        path.write_bytes(drawn.content(drawn.rows))
        chosen = scenario(path, drawn.args)
        try:
            population = datasets.load_population(chosen)
        except ShoalError as error:
            event(f"refused: {type(error).__name__}")
            return
        event("read")
        form = FileFormat.from_args(drawn.args)
        files = write_sites(population, folder / "sites", form)
        whole = read_columns(read_table(path, form).table, population.schema, form, path)
        sites = [row[drawn.head.index("site")] for row in drawn.rows]
        for client, file in enumerate(files):
            simulated, pilot = population.shard(client), load_site(file, population.schema, chosen)
            assert pilot.labels.tobytes() == simulated.labels.tobytes()
            own = [i for i, site in enumerate(sites) if site == population.name(client)]
            for column in population.schema.columns:
                assert same(pilot.columns[column.name], simulated.columns[column.name])
                assert same(whole[column.name][own], simulated.columns[column.name])
        for i in some:  # a row alone in its file, as for one prediction
            alone = folder / "alone.csv"
            alone.write_bytes(drawn.content([drawn.rows[i]]))
            found = read_columns(read_table(alone, form).table, population.schema, form, alone)
            for column in population.schema.columns:
                assert same(found[column.name], whole[column.name][i : i + 1])
