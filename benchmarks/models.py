"""The models of the benchmark tasks, built the same way on every side of a comparison.

shoal imports them by name (`benchmarks.models:cnn`); the others pass the Keras that they work with, as
pfl-research needs Keras 2.
"""

from __future__ import annotations

from typing import Any, Final

VOCABULARY: Final = 10_000


def mlp(spec: Any = None, num_classes: int = 2, keras: Any = None) -> Any:
    """Return 30-64 and one sigmoid output, which is two classes: 2,049 weights."""
    k = keras or _keras()
    hidden = k.layers.Dense(64, activation="relu")
    return k.Sequential([k.layers.Input((30,)), hidden, k.layers.Dense(1, activation="sigmoid")])


def cnn(spec: Any = None, num_classes: int = 10, keras: Any = None) -> Any:
    """Return the CNN of McMahan et al. (AISTATS 2017) for 28 x 28 images: 1,663,370 weights."""
    k = keras or _keras()
    blocks = [
        layer
        for filters in (32, 64)
        for layer in (
            k.layers.Conv2D(filters, 5, padding="same", activation="relu"),
            k.layers.MaxPooling2D(),
        )
    ]
    head = [
        k.layers.Flatten(),
        k.layers.Dense(512, activation="relu"),
        k.layers.Dense(10, activation="softmax"),
    ]
    return k.Sequential([k.layers.Input((28, 28, 1)), *blocks, *head])


def lstm(spec: Any = None, num_classes: int = 2, keras: Any = None) -> Any:
    """Return Embedding(10,000, 32), LSTM(128) over 40 tokens, one sigmoid output: 402,561 weights."""
    k = keras or _keras()
    return k.Sequential(
        [
            k.layers.Input((40,), dtype="int32"),
            k.layers.Embedding(VOCABULARY, 32),
            k.layers.LSTM(128),
            k.layers.Dense(1, activation="sigmoid"),
        ]
    )


def compiled(name: str, keras: Any, learning_rate: float) -> Any:
    """Return a model of this module, compiled as a careful user would."""
    model = MODELS[name](keras=keras)
    loss = "sparse_categorical_crossentropy" if name == "cnn" else "binary_crossentropy"
    model.compile(optimizer=keras.optimizers.SGD(learning_rate), loss=loss)
    return model


def _keras() -> Any:
    import keras

    return keras


MODELS: Final = {"mlp": mlp, "cnn": cnn, "lstm": lstm}
