"""Predicts raw rows with the model of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, parquet

from shoal.common import errors
from shoal.common.config.file import load_scenario
from shoal.common.errors import DataError, RunError, UnreadableDataError
from shoal.common.keras_loading import load_keras
from shoal.common.preprocessing.segment import segment
from shoal.common.schema import Schema
from shoal.common.tabular.csv_files import Format, read_csv
from shoal.common.tabular.tables import read_parquet

_BATCH = 1024


def predict(run: Path, rows: Path, out: Path | None) -> pa.Table:
    """Predict a table of raw rows.

    Args:
        run: a run folder.
        rows: CSV or Parquet with the run's input columns; other columns are ignored.
        out: where to write the predictions, CSV or Parquet by its suffix; `None` means nowhere.

    Returns:
        One row per input row: for classes "prediction" and "probability of …", otherwise "prediction".

    Raises:
        RunError: the run has no model. DataError: a column is missing or is not numeric.
    """
    schema = _schema(run)
    if schema.kind in ("image", "sequence"):
        raise DataError(
            f"this model needs one {schema.kind} per row, which a table cannot contain",
            hint=f"load {run / 'model.keras'} with keras.models.load_model and call it with arrays",
        )
    if not rows.exists():
        raise UnreadableDataError(f"there is no file {rows}")
    table = read_parquet(rows) if rows.suffix == ".parquet" else read_csv(rows, _csv_format(run))
    load_keras()  # takes seconds, so all checks come before
    inputs = _inputs(table, schema)
    import keras

    model = keras.models.load_model(run / "model.keras", compile=False)
    wanted = {tensor.name for tensor in model.inputs}
    found = model.predict({k: v for k, v in inputs.items() if k in wanted}, batch_size=_BATCH, verbose=0)
    predictions = _as_table(np.asarray(found), schema)
    if out is not None:
        _write(predictions, out)
    return predictions


def _schema(run: Path) -> Schema:
    for name in ("schema.json", "model.keras"):
        if not (run / name).exists():
            raise RunError(
                f"{run} contains no {name}: the run did not get that far, or this is not a run folder"
            )
    return Schema.from_json((run / "schema.json").read_text(encoding="utf-8"))


def _csv_format(run: Path) -> Format:
    """Return the format of the run's own CSV files, which new rows are assumed to have too."""
    data = load_scenario(run / "config.toml").data
    return Format.from_args(data.args) if data.source == "csv" else Format()


def _inputs(table: pa.Table, schema: Schema) -> dict[str, Any]:
    missing = [c.name for c in schema.columns if c.name not in table.column_names]
    if missing:
        known = table.column_names
        near = {name: errors.nearest(name, known) for name in missing}
        listed = ", ".join(f'{n} (there is "{near[n]}")' if near[n] else n for n in missing)
        raise DataError(f"the rows lack {len(missing)} of {len(schema.columns)} columns: {listed}")
    import tensorflow as tf

    inputs: dict[str, Any] = {}
    for column in schema.columns:
        values = table[column.name]
        if column.kind == "numeric":
            inputs[column.name] = tf.constant(_numbers(values, column.name)[:, None])
        else:
            texts = pc.fill_null(values.cast(pa.string()), "").to_pylist()
            if column.kind == "text":
                texts = [" ".join(segment(text)) for text in texts]
            inputs[column.name] = tf.constant([[text] for text in texts], tf.string)
    return inputs


def _numbers(values: pa.ChunkedArray, name: str) -> NDArray[np.float32]:
    try:
        return np.asarray(values.cast(pa.float64()).to_numpy(), np.float32)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f'column "{name}" contains values that are not numbers') from None


def _as_table(found: NDArray[Any], schema: Schema) -> pa.Table:
    if not schema.classes:
        return pa.table({"prediction": found[:, 0].astype(np.float64)})
    share = np.column_stack([1 - found[:, 0], found[:, 0]]) if found.shape[1] == 1 else found
    names = np.array(schema.classes, object)
    columns = {"prediction": names[share.argmax(axis=1)]}
    columns |= {f"probability of {name}": share[:, i].astype(np.float64) for i, name in enumerate(names)}
    return pa.table(columns)


def _write(table: pa.Table, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".parquet":
        parquet.write_table(table, out)
    else:
        csv.write_csv(table, out)
