"""Predicts raw rows with the model of a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from shoal.simulations.datasets.frames import as_table, is_frame

if TYPE_CHECKING:
    import keras

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
    _refuse_missing(table, schema)  # before Keras is loaded, which takes seconds
    predictions = _predicted(load_model(run), _inputs(table, schema), schema)
    if out is not None:
        _write(predictions, out)
    return predictions


def predict_given(run: Path, model: keras.Model, rows: Any) -> pa.Table:
    """Predict for raw rows that are at hand.

    Args:
        run: a run folder; model: its model, as `load_model` returns it.
        rows: a data frame or mapping with the run's input columns; or an array (rows, ...), where the run
            had arrays, too.

    Raises:
        RunError: the run left no model. DataError: a column is missing or is not a number.
    """
    schema = _schema(run)
    if is_frame(rows) and not isinstance(rows, np.ndarray):
        table = as_table(rows, "rows:")
        _refuse_missing(table, schema)
        return _predicted(model, _inputs(table, schema), schema)
    array = np.asarray(rows)
    shape = schema.columns[0].shape if schema.kind in ("image", "sequence") else (len(schema.columns),)
    if array.shape[1:] != shape or array.dtype.kind not in "biuf":
        raise DataError(
            f"the rows are {array.dtype} of shape {array.shape}; expected numbers of shape "
            f"(rows, {', '.join(map(str, shape))}), or a data frame"
        )
    if schema.kind in ("image", "sequence"):
        return _predicted(model, {schema.columns[0].name: array.astype(np.float32)}, schema)
    table = pa.table({column.name: array[:, i] for i, column in enumerate(schema.columns)})
    return _predicted(model, _inputs(table, schema), schema)


def load_model(run: Path) -> keras.Model:
    """Load the model of a run, which takes raw columns; layers of the running script are found.

    Raises:
        RunError: it left none, or the model is made of classes that this process does not have.
    """
    _schema(run)
    load_keras()
    import keras

    main = vars(sys.modules["__main__"])
    classes = {
        name: kind
        for name, kind in main.items()
        if isinstance(kind, type) and issubclass(kind, keras.layers.Layer) and kind.__module__ == "__main__"
    }
    try:
        return keras.models.load_model(run / "model.keras", custom_objects=classes, compile=False)
    except (TypeError, ValueError) as error:
        lacking = re.search(r"Could not locate [^.]*", str(error))
        reason = lacking[0] if lacking else str(error).partition("\n")[0]
        raise RunError(
            f"{run / 'model.keras'} cannot be loaded: {reason}",
            hint="if the model is made of classes of your own, load it with keras.models.load_model and "
            "custom_objects",
        ) from error


def _predicted(model: keras.Model, inputs: dict[str, Any], schema: Schema) -> pa.Table:
    wanted = {tensor.name for tensor in model.inputs}
    found = model.predict({k: v for k, v in inputs.items() if k in wanted}, batch_size=_BATCH, verbose=0)
    return _as_table(np.asarray(found), schema)


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


def _refuse_missing(table: pa.Table, schema: Schema) -> None:
    missing = [c.name for c in schema.columns if c.name not in table.column_names]
    if missing:
        known = table.column_names
        near = {name: errors.nearest(name, known) for name in missing}
        listed = ", ".join(f'{n} (there is "{near[n]}")' if near[n] else n for n in missing)
        raise DataError(f"the rows lack {len(missing)} of {len(schema.columns)} columns: {listed}")


def _inputs(table: pa.Table, schema: Schema) -> dict[str, Any]:
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
