"""One suite over all codecs of updates: a new one is a row of `CODECS`, and tested here at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoal.common.config.sections import UpdateConfig
from shoal.common.origin import Origin
from shoal.common.update.codecs import CODECS, Codec, codec_of

SHAPES: list[tuple[int, ...]] = [(4, 3), (3,), (), (0, 2)]
LIKE = [np.zeros(shape, np.float32) for shape in SHAPES]
NAMED = {name: codec_of(UpdateConfig(compress=name, top_share=0.5)) for name in CODECS}


def rng(client: int = 5) -> Callable[[], np.random.Generator]:
    return lambda: Origin(7, 2, client).rng("compression")


def update(seed: int = 0) -> list[NDArray[np.float32]]:
    draws = np.random.default_rng(seed)
    return [np.asarray(draws.normal(size=shape), np.float32) for shape in SHAPES]


@pytest.fixture(params=NAMED)
def codec(request: pytest.FixtureRequest) -> Codec:
    return NAMED[request.param]


def test_what_is_decoded_has_the_shapes_and_types_of_the_weights(codec: Codec) -> None:
    found = codec.decode(codec.encode(update(), rng()), LIKE)
    assert [(u.shape, u.dtype) for u in found] == [(w.shape, w.dtype) for w in LIKE]


def test_only_an_exact_codec_gives_the_bits_back(codec: Codec) -> None:
    found = codec.decode(codec.encode(update(), rng()), LIKE)
    same = [np.array_equal(a, b) for a, b in zip(found, update(), strict=True)]
    assert all(same) == codec.exact


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_no_number_is_off_by_more_than_the_stated_error(seed: int, scale: float) -> None:
    """float16: half a unit in the last of 11 places, or of 2^-24 below its range; int8: one of 127 steps.

    topk sends a value exactly or not at all.
    """
    original = [np.float32(scale) * u for u in update(seed)]
    for name, codec in NAMED.items():
        for a, b in zip(codec.decode(codec.encode(original, rng()), LIKE), original, strict=True):
            bound = {
                "none": np.zeros_like(b),
                "float16": np.maximum(2.0**-11 * np.abs(b), 2.0**-25),
                "int8": np.full_like(b, np.abs(b).max(initial=0) / 127 * (1 + 1e-5)),
                "topk": np.abs(b),
            }[name]
            assert (np.abs(a - b) <= bound).all()


def test_the_update_is_not_changed_and_a_client_gets_the_same_bits_again(codec: Codec) -> None:
    original = update()
    first, again = (codec.encode(original, rng()) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(original, update(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_update_of_zeros_stays_one(codec: Codec) -> None:
    found = codec.decode(codec.encode(LIKE, rng()), LIKE)
    assert all((u == 0).all() for u in found)


def test_what_was_encoded_fits_and_nothing_else_does(codec: Codec) -> None:
    encoded = codec.encode(update(), rng())
    assert codec.fits(encoded, LIKE)
    assert not codec.fits(encoded[1:], LIKE)
    assert not codec.fits([*encoded, encoded[0]], LIKE)
    assert not codec.fits([encoded[0][..., None], *encoded[1:]], LIKE)
    assert not codec.fits([e.astype(np.float64) for e in encoded], LIKE)
    assert not codec.fits([], LIKE)


def test_each_codec_refuses_what_another_sent() -> None:
    for name, codec in NAMED.items():
        assert [other for other, one in NAMED.items() if codec.fits(one.encode(update(), rng()), LIKE)] == [
            name
        ]
