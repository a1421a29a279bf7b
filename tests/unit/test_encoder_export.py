"""Training and the exported model see the same encoded rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from shoal.common.preprocessing import Encoder, PreprocessingSpec
from shoal.common.preprocessing import spec as s
from shoal.common.preprocessing.layers import with_preprocessing
from shoal.common.preprocessing.segment import segment

TABLE = PreprocessingSpec(
    numeric=(
        s.Numeric("age", fill=50.0, shift=45.0, scale=12.5, indicator=True),
        s.Numeric("dose", fill=0.0, shift=0.0, scale=1.0, indicator=False),
    ),
    categorical=(s.Categorical("sex", ("F", "M")), s.Categorical("ward", ("east",))),
)
ROWS: dict[str, Any] = {
    "age": np.array([20.0, np.nan, 70.0]),
    "dose": np.array([1.5, 2.5, np.nan]),
    "sex": np.array(["M", None, "X"], object),
    "ward": np.array(["east", "west", None], object),
}
# age: (20 - 45) / 12.5 = -2, filled (50 - 45) / 12.5 = 0.4, 2; then dose; whether age was missing;
# sex as unknown, missing, F, M; ward as unknown, missing, east
ENCODED = [
    [-2.0, 1.5, 0, 0, 0, 0, 1, 0, 0, 1],
    [0.4, 2.5, 1, 0, 1, 0, 0, 1, 0, 0],
    [2.0, 0.0, 0, 1, 0, 0, 0, 0, 1, 0],
]


def raw_inputs(columns: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    inputs: dict[str, Any] = {}
    for name, values in columns.items():
        if values.dtype == object:
            inputs[name] = tf.constant([[value or ""] for value in values])
        else:
            inputs[name] = tf.constant(values[:, None] if values.ndim == 1 else values, tf.float32)
    return inputs


def trained(spec: PreprocessingSpec) -> keras.Model:
    keras.utils.set_random_seed(0)
    wanted = spec.input_spec
    inputs = keras.Input(wanted.shape, dtype=wanted.dtype)
    x = keras.layers.Embedding(wanted.vocabulary_size, 4)(inputs) if wanted.kind == "tokens" else inputs
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def test_a_table_is_encoded_as_by_hand() -> None:
    found = Encoder(TABLE).encode(ROWS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ENCODED, atol=1e-6)
    assert TABLE.input_spec.shape == (10,)


def test_text_ids_by_hand() -> None:
    spec = PreprocessingSpec(tokens=s.Tokens("text", ("房间", "很"), length=4))
    # jieba cuts 房间很好 into 房间 / 很 / 好; 房间 is the first word (id 2), 很 the second, 好 unknown (1)
    assert segment("房间很好") == ["房间", "很", "好"]
    found = Encoder(spec).encode({"text": np.array(["房间很好", ""], object)})
    assert found.tolist() == [[2, 3, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("spec", "columns"),
    [
        (TABLE, ROWS),
        (PreprocessingSpec(numeric=(s.Numeric("age", 50.0, 45.0, 12.5, True),)), {"age": ROWS["age"]}),
        (PreprocessingSpec(categorical=(s.Categorical("sex", ("F", "M")),)), {"sex": ROWS["sex"]}),
        (
            PreprocessingSpec(image=s.Image("image", (4, 4, 1), 1 / 255)),
            {"image": np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1)).astype(np.uint8)},
        ),
        (
            PreprocessingSpec(sequence=s.Sequence("motion", (5, 2), (1.0, -2.0), (0.5, 3.0))),
            {"motion": np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)},
        ),
    ],
    ids=["table", "numbers", "categories", "images", "sequences"],
)
def test_the_exported_model_equals_encoding_then_model(
    spec: PreprocessingSpec, columns: dict[str, Any], tmp_path: Path
) -> None:
    model = trained(spec)
    wanted = model(Encoder(spec).encode(columns)).numpy()
    exported = with_preprocessing(spec, model)
    np.testing.assert_allclose(exported(raw_inputs(columns)).numpy(), wanted, atol=1e-5)
    exported.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")  # in safe mode, without any of our classes
    np.testing.assert_allclose(loaded(raw_inputs(columns)).numpy(), wanted, atol=1e-5)


def test_the_exported_text_model_takes_segmented_text(tmp_path: Path) -> None:
    spec = PreprocessingSpec(tokens=s.Tokens("text", ("房间", "很", "服务"), length=3))
    texts = np.array(["房间很好,服务也很好", "书", ""], object)
    model = trained(spec)
    wanted = model(Encoder(spec).encode({"text": texts})).numpy()
    cut = np.array([" ".join(segment(text)) for text in texts], object)
    exported = with_preprocessing(spec, model)
    np.testing.assert_allclose(exported(raw_inputs({"text": cut})).numpy(), wanted, atol=1e-5)
    exported.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(raw_inputs({"text": cut})).numpy(), wanted, atol=1e-5)


def test_json_round_trip_is_exact() -> None:
    for spec in (TABLE, PreprocessingSpec(tokens=s.Tokens("t", ("词", "b"), 7)),
                 PreprocessingSpec(image=s.Image("i", (8, 8, 3), 1 / 255)),
                 PreprocessingSpec(sequence=s.Sequence("q", (5, 2), (0.1, 0.2), (1 / 3, 2.0)))):  # fmt: skip
        assert PreprocessingSpec.from_json(spec.to_json()) == spec
        assert PreprocessingSpec.from_json(spec.to_json()).digest == spec.digest
