"""Writes a model that takes raw rows: preprocessing layers followed by the trained model."""

from __future__ import annotations

from pathlib import Path

import keras
from flwr.app import ArrayRecord

from shoal.common.config import Scenario
from shoal.common.journal import move_into_place
from shoal.common.models import build
from shoal.common.preprocessing import PreprocessingSpec
from shoal.common.preprocessing.layers import with_preprocessing
from shoal.common.schema import Schema
from shoal.common.update.spec import WeightSpec
from shoal.common.weights import record_to_weights


def export_model(
    scenario: Scenario, schema: Schema, spec: PreprocessingSpec, arrays: ArrayRecord, path: Path
) -> None:
    """Save a `.keras` file whose inputs are the raw columns.

    Args:
        scenario: for the model; schema: for its outputs.
        spec: the preprocessing to include in the file.
        arrays: the learnt shared weights; the others are the initial ones.
        path: the file; written to a temporary file first, so that a crash leaves no incomplete file.
    """
    trained = load_trained(scenario, schema, spec, arrays)
    part = path.with_name(f".{path.name}.part.keras")
    try:
        with_preprocessing(spec, trained).save(part)
        move_into_place(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def load_trained(
    scenario: Scenario, schema: Schema, spec: PreprocessingSpec, arrays: ArrayRecord
) -> keras.Model:
    """Build the scenario's model and set the learnt shared weights."""
    model = build(scenario.model, spec.input_spec, schema.num_classes, seed=scenario.seed)
    roles = WeightSpec.of(model, local_statistics=scenario.model.aggregate_statistics == "local")
    model.set_weights(roles.with_shared(model.get_weights(), record_to_weights(arrays)))
    return model
