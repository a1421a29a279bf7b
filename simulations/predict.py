"""Predicts raw rows with the model of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError, DataError, RunError
from shoal.common.keras_loading import load_keras
from shoal.common.preprocessing.segment import segment
from shoal.common.schema import Schema
from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.reading import FileTable, lacking_columns, read_columns, read_table
from shoal.simulations.datasets.frames import as_table, is_frame
from shoal.simulations.trial import load_saved

if TYPE_CHECKING:
    import keras

_BATCH = 1024


def predict(
    run: Path, rows: Path, out: Path | None, *, key: str | None = None, overrides: Sequence[str] = ()
) -> pa.Table:
    """Predict a table of raw rows.

    Args:
        run: a run folder.
        rows: CSV or Parquet with the run's input columns; other columns are ignored.
        out: where to write the predictions, CSV or Parquet by its suffix; `None` means nowhere.
        key: a column of the rows that is put before the predictions, to tell rows apart.
        overrides: "data.args.…=value" settings, where the file is written differently from the run's own.

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
    form = _file_format(run, overrides)
    found = read_table(rows, form)
    table = found.table
    _refuse_missing(found, schema, form, rows)  # before Keras is loaded, which takes seconds
    if problems := lacking_columns(found, [] if key is None else [key], form, rows):
        raise ConfigError(f"--key: {problems[0]}")
    predictions = _predicted(run, None, table, schema, form, rows)
    if key is not None:
        predictions = predictions.add_column(0, key, table[key])
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
        form = _file_format(run)
        _refuse_missing(FileTable(table, typed=True), schema, form, "the rows")
        return _predicted(run, model, table, schema, form, "the rows")
    array = np.asarray(rows)
    shape = schema.columns[0].shape if schema.kind in ("image", "sequence") else (len(schema.columns),)
    if array.shape[1:] != shape or array.dtype.kind not in "biuf":
        raise DataError(
            f"the rows are {array.dtype} of shape {array.shape}; expected numbers of shape "
            f"(rows, {', '.join(map(str, shape))}), or a data frame"
        )
    if schema.kind in ("image", "sequence"):
        return _computed(model, {schema.columns[0].name: array.astype(np.float32)}, schema)
    table = pa.table({column.name: array[:, i] for i, column in enumerate(schema.columns)})
    return _predicted(run, model, table, schema, _file_format(run), "the rows")


def load_model(run: Path) -> keras.Model:
    """Load the model of a run, which takes raw columns.

    Classes of the module that the scenario names are found, and those of the running script.

    Raises:
        RunError: it left none, or the model is made of classes that cannot be imported.
    """
    _schema(run)
    try:
        return load_saved(run / "model.keras", load_scenario(run / "config.toml").model.name)
    except (TypeError, ValueError) as error:
        lacking = re.search(r"Could not locate [^.]*", str(error))
        reason = lacking[0] if lacking else str(error).partition("\n")[0]
        raise RunError(
            f"{run / 'model.keras'} cannot be loaded: {reason}",
            hint="if the model is made of classes of your own, predict where their module can be "
            "imported, as in the folder of the scenario",
        ) from error


def _predicted(
    run: Path,
    model: keras.Model | None,
    table: pa.Table,
    schema: Schema,
    form: FileFormat,
    where: Path | str,
) -> pa.Table:
    """Read the inputs of rows and predict them; the model is loaded only if there are rows."""
    if not table.num_rows:
        return _as_table(np.empty((0, max(1, schema.num_classes))), schema)
    inputs = _inputs(table, schema, form, where)
    return _computed(load_model(run) if model is None else model, inputs, schema)


def _computed(model: keras.Model, inputs: dict[str, Any], schema: Schema) -> pa.Table:
    from shoal.common.preprocessing.layers import column_name

    rows = {tensor.name: inputs[column_name(tensor.name)] for tensor in model.inputs}
    found = model.predict(rows, batch_size=_BATCH, verbose=0)
    return _as_table(np.asarray(found), schema)


def _schema(run: Path) -> Schema:
    for name in ("schema.json", "model.keras"):
        if not (run / name).exists():
            raise RunError(
                f"{run} contains no {name}: the run did not get that far, or this is not a run folder"
            )
    return Schema.from_json((run / "schema.json").read_text(encoding="utf-8"))


def _file_format(run: Path, overrides: Sequence[str] = ()) -> FileFormat:
    """Return the format of the run's own files, which new rows are assumed to have too, with changes.

    Raises:
        ConfigError: an override is not about data.args.
    """
    other = [text for text in overrides if not text.startswith("data.args.")]
    if other:
        raise ConfigError(
            [f"--set {text.partition('=')[0]}: only data.args can be set for a prediction" for text in other]
        )
    return FileFormat.from_args(load_scenario(run / "config.toml", overrides).data.args)


def _refuse_missing(found: FileTable, schema: Schema, form: FileFormat, where: Path | str) -> None:
    wanted = [column.name for column in schema.columns]
    problems = lacking_columns(found, wanted, form, where)
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise DataError(
            f"{where}: the model needs {len(wanted)} columns, of which {len(problems)} are missing:{listed}"
        )


def _inputs(table: pa.Table, schema: Schema, form: FileFormat, where: Path | str) -> dict[str, Any]:
    """Return the model's inputs, each (rows, 1); missing numbers are NaN, missing texts empty."""
    load_keras()
    import tensorflow as tf

    inputs: dict[str, Any] = {}
    for name, values in read_columns(table, schema, form, where).items():
        if values.dtype != object:
            inputs[name] = tf.constant(values.astype(np.float32)[:, None])
            continue
        texts = [text or "" for text in values.tolist()]
        if schema.kind == "text":
            texts = [" ".join(segment(text)) for text in texts]
        inputs[name] = tf.constant(np.array(texts, object)[:, None], tf.string)
    return inputs


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
