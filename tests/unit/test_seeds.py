"""Every draw has a stream of its own, the same in every process."""

from __future__ import annotations

import itertools
import pickle
from hashlib import blake2b

import numpy as np

from shoal.common.seeds import generator, integer_seed


def test_streams_are_those_of_the_digest() -> None:
    """PCG64 takes 4 words of 64 bits from its seed sequence (numpy's documentation of `ISeedSequence`):
    with the digest in SeedSequence's place, the same state has to come out of two differently built ones."""
    words = np.frombuffer(blake2b(b"7/3/11/shuffle", digest_size=32).digest(), np.uint64)

    class Given(np.random.bit_generator.ISeedSequence):  # type: ignore[name-defined,misc]
        def generate_state(self, n_words: int, dtype: object = np.uint32) -> np.ndarray:
            return words

    expected = np.random.Generator(np.random.PCG64(Given())).integers(1 << 40, size=5)
    found = generator(7, "shuffle", dispatch=3, client=11).integers(1 << 40, size=5)
    assert found.tolist() == expected.tolist()


def test_a_change_of_any_part_gives_other_numbers() -> None:
    keys = itertools.product((0, 1, 11), ("shuffle", "split"), (0, 1, 11), (0, 1, 11))
    draws = [generator(s, p, dispatch=r, client=c).integers(1 << 60) for s, p, r, c in keys]
    assert len(set(draws)) == len(draws)


def test_an_integer_seed_is_small_enough_for_keras() -> None:
    seeds = [integer_seed(seed, "weights") for seed in range(1000)]
    assert len(set(seeds)) == 1000
    assert 0 <= min(seeds) <= max(seeds) < 2**31
    # 1000 uniform draws lie in all eighths: missing one has probability 8 * (7/8)^1000 < 1e-57.
    assert {seed >> 28 for seed in seeds} == set(range(8))


def test_a_generator_survives_pickling() -> None:
    rng = generator(1, "data")
    copy = pickle.loads(pickle.dumps(rng))
    assert copy.random() == rng.random()
