"""Rows from gradients: exact for one row of a Dense layer, near for more, nothing under noise."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from shoal.common.config import ModelConfig, TrainingConfig
from shoal.common.models import build, compile_model
from shoal.common.schema import InputSpec
from shoal.simulations.leakage.inversion import (
    mean_similarity,
    read_off,
    similarity,
    span_of,
    token_overlap,
    tokens_moved,
)
from shoal.simulations.leakage.matching import Matcher
from shoal.simulations.leakage.updates import first_dense, first_embedding

INPUTS = 12
SPEC = InputSpec("vector", (INPUTS,))


def model(name: str = "mlp", spec: InputSpec = SPEC, **args: object) -> keras.Model:
    built = build(ModelConfig(name=name, args=args), spec, 2, seed=1)
    compile_model(built, TrainingConfig(), "binary")
    return built


def gradient(of: keras.Model, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """The gradient of the mean loss of a batch, by Keras and TensorFlow themselves."""
    variables = [v.value for v in of.trainable_variables]
    with tf.GradientTape() as tape:
        loss = of.compute_loss(x=x, y=y, y_pred=of(x, training=True), training=True)
    return [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, variables)]


def rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, INPUTS)).astype(np.float32), np.arange(count) % 2


def test_one_row_is_read_off_a_dense_layer() -> None:
    """Of one row x the kernel's gradient is x dᵀ and the bias' is d, so that x = (x dᵀ) d / dᵀd."""
    built = model(hidden=[16, 8])
    x, y = rows(1)
    place = first_dense(built, SPEC)
    assert place == (0, 1)
    found = gradient(built, x, y)
    np.testing.assert_allclose(read_off(found[0], found[1]), x[0], atol=1e-5)


def test_of_two_rows_a_mixture_is_read_off() -> None:
    built = model(hidden=[16, 8])
    x, y = rows(2)
    found = gradient(built, x, y)
    mixed = read_off(found[0], found[1])
    assert np.abs(mixed - x).mean(axis=1).min() > 0.05


def test_a_layer_that_no_row_moved_gives_zeros() -> None:
    assert not read_off(np.zeros((3, 2)), np.zeros(2)).any()


def test_rows_lie_in_the_span_of_the_first_kernels_gradient() -> None:
    built = model(hidden=[16, 8])
    x, y = rows(3)
    span = span_of(gradient(built, x, y)[0], 3)
    np.testing.assert_allclose(x @ span.T @ span, x, atol=1e-4)


def test_matching_finds_several_rows() -> None:
    built = model(hidden=[32, 16])
    x, y = rows(3)
    found = gradient(built, x, y)
    start = np.random.default_rng(5).standard_normal(x.shape).astype(np.float32)
    matcher = Matcher(built, image=False, steps=300)
    guesses, objective = matcher.reconstruct(found, y, start, span_of(found[0], 3))
    assert objective < 0.01
    told = similarity(x, guesses, np.arange(3), np.concatenate([x, rows(20, 9)[0]]), image=False)
    assert told.found == 1
    assert told.cosine > 0.95
    noise = [np.random.default_rng(2).standard_normal(g.shape).astype(np.float32) for g in found]
    blind, _ = matcher.reconstruct(noise, y, start, span_of(noise[0], 3))
    assert similarity(x, blind, np.arange(3), x, image=False).cosine < 0.6


def test_matching_without_a_span_finds_an_image() -> None:
    spec = InputSpec("image", (8, 8, 1))
    built = model("cnn", spec, filters=[16], dense=64)
    assert first_dense(built, spec) is None  # a convolution comes first
    x = (load_digits().images[5] / 16).astype(np.float32).reshape(1, 8, 8, 1)
    found = gradient(built, x, np.array([1]))
    start = np.random.default_rng(4).random(x.shape).astype(np.float32)
    guess, _ = Matcher(built, image=True, steps=300).reconstruct(found, np.array([1]), start)
    before, after = (similarity(x, g, np.arange(1), x, image=True) for g in (start, guess))
    assert before.psnr is not None
    assert after.psnr is not None
    assert after.psnr > before.psnr + 15  # dB; the start is noise, 5 dB from the image
    assert 0 <= guess.min() <= guess.max() <= 1


def test_weight_decay_is_taken_off() -> None:
    """The gradient of l2 times the sum of squares of the output's kernel W is 2 l2 W."""
    built = model(hidden=[4], l2=0.01)
    decay = Matcher(built, image=False, steps=1).weight_decay()
    regularised = {id(w): 0.02 for w in built.trainable_weights if w.name == "kernel"}
    for weight, found in zip(built.trainable_weights, decay, strict=True):
        assert found == pytest.approx(regularised.get(id(weight), 0.0) * np.asarray(weight.value), abs=1e-6)


def test_tokens_that_were_read_are_seen_through_noise() -> None:
    spec = InputSpec("tokens", (5,), vocabulary_size=50)
    built = model("pooled-text", spec)
    x = np.array([[3, 7, 7, 9, 0]], np.int32)
    place = first_embedding(built)
    assert place == 0
    variables = [v.value for v in built.trainable_variables]
    with tf.GradientTape() as tape:
        loss = built.compute_loss(x=x, y=np.array([1]), y_pred=built(x, training=True), training=True)
    table = tf.convert_to_tensor(tape.gradient(loss, variables)[place]).numpy()
    seen = tokens_moved(table)
    truth = np.isin(np.arange(50), [3, 7, 9])
    assert token_overlap(truth, seen) == 1
    size = np.linalg.norm(table, axis=1).max()
    noise = np.random.default_rng(0).standard_normal(table.shape).astype(np.float32)
    assert token_overlap(truth, tokens_moved(table + 0.01 * size * noise)) > 0.7
    assert token_overlap(truth, tokens_moved(table + 10 * size * noise)) == 0


def test_similarity_by_hand() -> None:
    """Guesses come in the other order. Errors: |0.5| of one of two numbers of one row: 0.5 / 4 = 0.125.

    Cosines: 1, and of (0, 1) with (0.5, 1) 1/√1.25. PSNR of squares (0 → 1e-10 kept, 0.125): the mean of 100
    and -10 log10 0.125. The second guess is as near to its row as to no other: both are found.
    """
    truth = np.array([[1.0, 0.0], [0.0, 1.0]])
    guesses = np.array([[0.5, 1.0], [1.0, 0.0]])
    found = similarity(
        truth, guesses, np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0], [5, 5]]), image=True
    )
    assert found.error == pytest.approx(0.125)
    assert found.cosine == pytest.approx((1 + 1 / np.sqrt(1.25)) / 2)
    assert found.psnr == pytest.approx((100 - 10 * np.log10(0.125)) / 2)
    assert found.found == 1
    nearer = similarity(
        truth[1:], guesses[:1], np.array([0]), np.array([[0.0, 1.0], [0.4, 1.0]]), image=False
    )
    assert (nearer.found, nearer.psnr) == (0, None)
    assert mean_similarity([found, nearer]).found == 0.5


def test_tokens_without_overlap() -> None:
    assert token_overlap(np.array([True, False]), np.array([False, True])) == 0
