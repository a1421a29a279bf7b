"""One suite over all steps between local training and encoding: a new one is a row of `STEPS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from shoal.clients.update.clip import Clip
from shoal.clients.update.error_feedback import ErrorFeedback
from shoal.clients.update.noise import GaussianNoise
from shoal.clients.update.pipeline import finite
from shoal.clients.update.step import Step, StepStates, Updates
from shoal.common.origin import Origin
from shoal.common.update.codecs import TopK

STEPS: Mapping[str, Callable[[], Step]] = {
    "clip": lambda: Clip(1.5),
    "noise": lambda: GaussianNoise(0.1),
    "error feedback": lambda: ErrorFeedback(TopK(0.3)),
}
SHAPES: list[tuple[int, ...]] = [(4, 3), (3,), ()]
ORIGINS = [Origin(7, 2, client) for client in (5, 0, 9, 3)]


def updates(seed: int = 0) -> Updates:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=(len(ORIGINS), *shape)), np.float32) for shape in SHAPES]


def applied(step: Step, stack: Updates, origins: list[Origin]) -> Updates:
    return step.apply(stack, origins, states(step, len(origins)))[0]


def states(step: Step, clients: int) -> StepStates:
    initial = step.init_state([u[0] for u in updates()])
    return {name: np.stack([value] * clients) for name, value in initial.items()}


def some(stack: Updates, clients: list[int]) -> Updates:
    return [u[clients] for u in stack]


@pytest.fixture(params=STEPS)
def step(request: pytest.FixtureRequest) -> Step:
    return STEPS[request.param]()


def test_shapes_and_types_are_kept(step: Step) -> None:
    for before, after in zip(updates(), applied(step, updates(), ORIGINS), strict=True):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)


def test_the_same_client_gets_the_same_bits_in_any_company(step: Step) -> None:
    together = applied(step, updates(), ORIGINS)
    for clients in ([2], [3, 0], [3, 2, 1, 0]):
        alone = applied(step, some(updates(), clients), [ORIGINS[k] for k in clients])
        for a, b in zip(alone, some(together, clients), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_client_that_diverged_is_the_only_one_that_is_refused(step: Step) -> None:
    bad = updates()
    bad[0][1, 2, 0] = np.inf
    bad[1][3, 1] = np.nan
    with np.errstate(invalid="ignore"):
        after = applied(step, bad, ORIGINS)
    assert finite(after).tolist() == [True, False, True, False]
    for a, b in zip(some(after, [0, 2]), some(applied(step, updates(), ORIGINS), [0, 2]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_update_of_zeros_stays_finite(step: Step) -> None:
    assert finite(applied(step, [np.zeros_like(u) for u in updates()], ORIGINS)).all()


def test_what_other_steps_remember_is_passed_on_unchanged(step: Step) -> None:
    memory = np.arange(8.0).reshape(4, 2)
    own = states(step, len(ORIGINS))
    _, after = step.apply(updates(), ORIGINS, {"of another": memory, **own})
    assert set(after) == {"of another", *own}
    np.testing.assert_array_equal(after["of another"], np.arange(8.0).reshape(4, 2))
