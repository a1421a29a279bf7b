"""What training a Keras model costs: floating-point operations and memory, from the model itself.

Operations are counted by a formula for each layer, with loops multiplied; a layer without a formula is
measured on its TensorFlow graph. A multiplication and an addition count as two. The backward pass takes twice
the forward pass: the gradient by the inputs and the gradient by the weights are products of the same size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import keras

_BYTES: Final = 4  # of a float32
_BASE_BYTES: Final = 60e6  # of a runtime that does nothing yet, e.g. LiteRT with its buffers; an assumption
_BACKWARD: Final = 2.0
# Arrays of the size of the weights that an optimizer keeps.
_SLOTS: Final = {
    "adadelta": 2, "adafactor": 1, "adagrad": 1, "adam": 2, "adamax": 2, "adamw": 2, "ftrl": 2, "lamb": 2,
    "lion": 1, "nadam": 2, "rmsprop": 1, "sgd": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What one row costs in the forward pass, and what the weights take.

    Attributes:
        forward: operations for one row; activations: numbers that layers put out for one row.
        weights: numbers in the weights; measured: names of the layers that have no formula here.
    """

    forward: float
    activations: int
    weights: int
    measured: tuple[str, ...]

    def flops_per_step(self, batch_size: int) -> float:
        """Return the operations of a step of training, forward and backward."""
        return self.forward * (1 + _BACKWARD) * batch_size

    def memory(self, batch_size: int, optimizer: str) -> float:
        """Return the bytes that training needs.

        Weights, their gradients and the optimizer's slots; activations, and gradients by them.
        """
        copies = 2 + _SLOTS.get(optimizer, 2)
        return _BASE_BYTES + _BYTES * (self.weights * copies + 2 * self.activations * batch_size)


def model_cost(model: keras.Model) -> ModelCost:
    """Count a built model."""
    forward, activations, measured = 0.0, 0, []
    for layer, given, made in _calls(model):
        formula = next((_FORMULAS[kind] for kind in type(layer).__mro__ if kind in _FORMULAS), None)
        if formula is None and not getattr(layer, "weights", ()):
            formula = _elementwise(1.0)  # an operation on each number
        if formula is None:
            forward += _measured(layer, given)
            measured.append(layer.name)
        else:
            forward += formula(layer, given, made)
        activations += _size(made)
    return ModelCost(forward, activations, model.count_params(), tuple(measured))


def _calls(model: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each layer of a graph with the shape of its (first) input and output, without the batch.

    A model that is no graph of layers is one layer.
    """
    graph = getattr(model, "_functional", model) or model  # a Sequential keeps its graph there
    if not hasattr(graph, "_nodes_by_depth"):
        shape = tuple(getattr(model, "input_shape", ()) or ())[1:]
        yield model, shape, tuple(getattr(model, "output_shape", ()) or ())[1:]
        return
    for nodes in graph._nodes_by_depth.values():
        for node in nodes:
            layer = node.operation
            if isinstance(layer, keras.layers.InputLayer):
                continue
            if isinstance(layer, keras.Model):
                yield from _calls(layer)
                continue
            given, made = node.input_tensors, node.output_tensors
            yield layer, tuple(given[0].shape)[1:] if given else (), tuple(made[0].shape)[1:]


def _size(shape: Any) -> int:
    return math.prod(n or 1 for n in shape)


def _dense(layer: Any, given: Any, made: Any) -> float:
    return float(2 * _size(given) * layer.units + layer.use_bias * _size(made))


def _convolution(layer: Any, given: Any, made: Any) -> float:
    channels = given[-1] if layer.data_format == "channels_last" else given[0]
    each = 2.0 * math.prod(layer.kernel_size) * channels / layer.groups
    return float(_size(made) * (each + layer.use_bias))


def _depthwise(layer: Any, given: Any, made: Any) -> float:
    return float(_size(made) * (2 * math.prod(layer.kernel_size) + layer.use_bias))


def _recurrent(gates: int) -> Callable[[Any, Any, Any], float]:
    def count(layer: Any, given: Any, made: Any) -> float:
        steps, inputs = given[0] or 1, given[-1]
        products = 2.0 * gates * layer.units * (inputs + layer.units)
        return float(steps * (products + 5 * gates * layer.units))  # biases, sigmoids and products by gates

    return count


def _wrapped_twice(layer: Any, given: Any, made: Any) -> float:
    return 2.0 * _FORMULAS[type(layer.forward_layer)](layer.forward_layer, given, made)


def _attention(layer: Any, given: Any, made: Any) -> float:
    """Projections of queries, keys, values and the result; scores and their use, which grow with length²."""
    length, width = given[0] or 1, given[-1]
    heads, values = layer.num_heads * layer.key_dim, layer.num_heads * (layer.value_dim or layer.key_dim)
    projections = 4.0 * length * width * (heads + values)
    return float(projections + 2.0 * length**2 * (heads + values) + 5.0 * layer.num_heads * length**2)


def _elementwise(times: float) -> Callable[[Any, Any, Any], float]:
    return lambda layer, given, made: times * max(_size(given), _size(made))


_FREE = _elementwise(0.0)
_layers = keras.layers
_FORMULAS: Final[Mapping[type, Callable[[Any, Any, Any], float]]] = {
    _layers.Dense: _dense,
    _layers.Conv1D: _convolution,
    _layers.Conv2D: _convolution,
    _layers.Conv3D: _convolution,
    _layers.DepthwiseConv1D: _depthwise,
    _layers.DepthwiseConv2D: _depthwise,
    _layers.SimpleRNN: _recurrent(1),
    _layers.GRU: _recurrent(3),
    _layers.LSTM: _recurrent(4),
    _layers.Bidirectional: _wrapped_twice,
    _layers.MultiHeadAttention: _attention,
    _layers.Embedding: _FREE,  # reads rows of a table
    _layers.Flatten: _FREE,
    _layers.Reshape: _FREE,
    _layers.Permute: _FREE,
    _layers.Concatenate: _FREE,
    _layers.ZeroPadding2D: _FREE,
    _layers.Cropping2D: _FREE,
    _layers.RepeatVector: _FREE,
    _layers.UpSampling2D: _FREE,
    _layers.Dropout: _elementwise(2.0),
    _layers.SpatialDropout1D: _elementwise(2.0),
    _layers.Activation: _elementwise(4.0),
    _layers.ReLU: _elementwise(1.0),
    _layers.LeakyReLU: _elementwise(2.0),
    _layers.Softmax: _elementwise(5.0),
    _layers.Rescaling: _elementwise(2.0),
    _layers.BatchNormalization: _elementwise(8.0),
    _layers.LayerNormalization: _elementwise(8.0),
    _layers.GroupNormalization: _elementwise(8.0),
    _layers.Add: _elementwise(1.0),
    _layers.Multiply: _elementwise(1.0),
    _layers.MaxPooling1D: _elementwise(1.0),
    _layers.MaxPooling2D: _elementwise(1.0),
    _layers.AveragePooling1D: _elementwise(1.0),
    _layers.AveragePooling2D: _elementwise(1.0),
    _layers.GlobalAveragePooling1D: _elementwise(1.0),
    _layers.GlobalAveragePooling2D: _elementwise(1.0),
    _layers.GlobalMaxPooling1D: _elementwise(1.0),
    _layers.GlobalMaxPooling2D: _elementwise(1.0),
}
del _layers


def _measured(layer: Any, given: Any) -> float:
    """Count a layer on its graph, for one row; loops within it count once."""
    import tensorflow as tf
    from tensorflow.python.profiler.model_analyzer import profile
    from tensorflow.python.profiler.option_builder import ProfileOptionBuilder

    dtype = getattr(layer, "input_dtype", None) or "float32"
    row = tf.TensorSpec([1, *(n or 1 for n in given)], dtype)
    graph = tf.function(lambda x: layer(x, training=False)).get_concrete_function(row).graph
    options = ProfileOptionBuilder(ProfileOptionBuilder.float_operation()).with_empty_output().build()
    found = profile(graph, options=options)
    return float(found.total_float_ops) if found is not None else 0.0
