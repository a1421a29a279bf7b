"""Writes a model that takes raw rows: preprocessing layers followed by the trained model."""

from __future__ import annotations

from pathlib import Path

import keras
from flwr.app import ArrayRecord

from shoal.common.config import Scenario
from shoal.common.models import build
from shoal.common.preprocessing import PreprocessingSpec
from shoal.common.preprocessing.layers import with_preprocessing
from shoal.common.records import record_to_weights
from shoal.common.schema import Schema


def export_model(
    scenario: Scenario, schema: Schema, spec: PreprocessingSpec, arrays: ArrayRecord, path: Path
) -> None:
    """Save a `.keras` file whose inputs are the raw columns.

    Args:
        scenario: for the model; schema: for its outputs.
        spec: the preprocessing to include in the file.
        arrays: the learnt weights.
        path: the file; written to a temporary file first, so that a crash leaves no incomplete file.
    """
    trained = load_trained(scenario, schema, spec, arrays)
    part = path.with_name(f".{path.name}.part.keras")
    with_preprocessing(spec, trained).save(part)
    part.replace(path)


def load_trained(
    scenario: Scenario, schema: Schema, spec: PreprocessingSpec, arrays: ArrayRecord
) -> keras.Model:
    """Build the scenario's model and set the learnt weights."""
    model = build(scenario.model, spec.input_spec, schema.num_classes, seed=scenario.seed)
    model.set_weights(record_to_weights(arrays))
    return model
