"""Which of a model's weights travel, stay with the client, or never change."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from shoal.common.update.spec import WeightSpec, content_hash, replaced


def built(*layers: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((3,)), *layers])


class Counting(keras.layers.Layer):
    """Passes its input on; holds a counter of calls, which is no number to average."""

    def build(self, input_shape: Any) -> None:
        self.calls = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        return x


def test_a_dense_layer_is_trainable() -> None:
    spec = WeightSpec.of(built(keras.layers.Dense(2)))
    assert spec.roles == ("trainable", "trainable")
    assert [name.rsplit("/", 1)[-1] for name in spec.names] == ["kernel", "bias"]
    assert (spec.shared, spec.personal, spec.frozen) == ([0, 1], [], [])


def test_moving_averages_of_batch_norm_are_statistics() -> None:
    """Keras' order within the layer: gamma, beta, moving mean, moving variance."""
    model = built(keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dense(1))
    roles = ("trainable",) * 4 + ("statistic",) * 2 + ("trainable",) * 2
    mean, local = WeightSpec.of(model), WeightSpec.of(model, local_statistics=True)
    assert mean.roles == local.roles == roles
    assert (mean.shared, mean.personal, mean.frozen) == ([*range(8)], [], [])
    assert (local.shared, local.personal, local.frozen) == ([0, 1, 2, 3, 6, 7], [4, 5], [])


def test_a_frozen_batch_norm_moves_nothing() -> None:
    """With trainable = False Keras runs it in inference mode, which leaves its averages alone."""
    layer = keras.layers.BatchNormalization()
    model = built(keras.layers.Dense(2), layer)
    layer.trainable = False
    spec = WeightSpec.of(model, local_statistics=True)
    assert spec.roles == ("trainable", "trainable", *("frozen",) * 4)
    assert (spec.shared, spec.personal, spec.frozen) == ([0, 1], [], [2, 3, 4, 5])


def test_a_frozen_dense_layer_is_frozen_and_not_a_statistic() -> None:
    layer = keras.layers.Dense(2)
    model = built(layer, keras.layers.Dense(1))
    layer.trainable = False
    assert WeightSpec.of(model).roles == ("frozen", "frozen", "trainable", "trainable")


def test_a_submodel_is_frozen_as_a_whole() -> None:
    body = built(keras.layers.Dense(2), keras.layers.BatchNormalization())
    model = built(body, keras.layers.Dense(1))
    assert WeightSpec.of(model).frozen == []
    body.trainable = False
    assert WeightSpec.of(model).roles == (*("frozen",) * 6, "trainable", "trainable")


def test_whole_numbers_are_frozen() -> None:
    spec = WeightSpec.of(built(Counting(), keras.layers.Dense(1)))
    assert sorted(spec.roles) == ["frozen", "trainable", "trainable"]


def test_the_seed_of_dropout_is_no_weight() -> None:
    spec = WeightSpec.of(built(keras.layers.Dense(2), keras.layers.Dropout(0.5)))
    assert spec.roles == ("trainable", "trainable")


def test_shared_weights_are_taken_and_put_back_in_their_places() -> None:
    spec = WeightSpec(("frozen", "trainable", "statistic"), ("a", "b", "c"))
    weights = [np.full(2, float(k)) for k in range(3)]
    assert [w[0] for w in spec.take_shared(weights)] == [1, 2]
    found = spec.with_shared(weights, [np.full(2, 10.0), np.full(2, 20.0)])
    assert [w[0] for w in found] == [0, 10, 20]
    assert [w[0] for w in weights] == [0, 1, 2]  # not changed
    with pytest.raises(ValueError, match="zip"):
        replaced(weights, [0, 1], [np.zeros(2)])


def test_frozen_weights_are_known_by_types_shapes_and_numbers() -> None:
    spec = WeightSpec(("frozen", "trainable"), ("a", "b"))
    weights = [np.arange(4, dtype=np.float32), np.zeros(1)]
    found = spec.frozen_hash(weights)
    assert found is not None
    assert len(found) == 32
    assert found == spec.frozen_hash([weights[0].copy(), np.ones(1)])  # trainable ones do not matter
    assert found == spec.frozen_hash([np.arange(8, dtype=np.float32)[::2] / 2, weights[1]])  # nor does memory
    others = [weights[0].reshape(2, 2), weights[0].astype(np.float64), weights[0] + np.float32(1e-7)]
    assert len({found, *(spec.frozen_hash([w, weights[1]]) for w in others)}) == 4
    assert WeightSpec(("trainable",), ("a",)).frozen_hash([np.zeros(1)]) is None


def test_an_array_of_no_numbers_has_a_hash_too() -> None:
    assert content_hash([np.zeros((0, 3))]) != content_hash([np.zeros((3, 0))])
