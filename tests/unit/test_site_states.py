"""A site's own state follows a server that was killed and repeats rounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shoal.clients.pilot.states import SiteStates
from shoal.clients.state import StateBatch
from shoal.common.errors import CheckpointError


def train(states: SiteStates, round_number: int) -> float:
    """Make the state 10 times itself plus the round's number; return what it was before."""
    states.begin(round_number)
    found = states.read(0)
    value = 0.0 if found is None else float(found.arrays["c"][0, 0])
    new = np.array([[10 * value + round_number]], np.float64)
    states.write(StateBatch(np.array([0], np.int64), {"c": new}))
    return value


def test_a_repeated_round_starts_from_the_state_that_it_started_from(tmp_path: Path) -> None:
    states = SiteStates.in_folder(tmp_path, checkpoint_every=1)
    assert [train(states, number) for number in (1, 2, 3)] == [0, 1, 12]
    assert [train(states, number) for number in (2, 3, 4)] == [1, 12, 123]
    states.close()
    opened = SiteStates.in_folder(tmp_path, checkpoint_every=1)  # the site was restarted
    assert train(opened, 4) == 123
    opened.close()


def test_rounds_without_this_client_do_not_matter(tmp_path: Path) -> None:
    """A resumed server with other cohorts asks for a round that this site was not in before."""
    states = SiteStates.in_folder(tmp_path, checkpoint_every=1)
    assert [train(states, number) for number in (2, 5)] == [0, 2]
    assert train(states, 4) == 2  # the state after round 2
    assert train(states, 1) == 0
    states.close()


@pytest.mark.parametrize("every", [1, 3])
def test_a_site_can_go_back_as_far_as_a_server_that_keeps_two_checkpoints(tmp_path: Path, every: int) -> None:
    """Checkpoints after rounds 20 - every and 20 - 2 every: from the older, 2 every rounds are repeated."""
    states = SiteStates.in_folder(tmp_path, checkpoint_every=every)
    started = {number: train(states, number) for number in range(1, 21)}
    first = 20 - 2 * every + 1
    with pytest.raises(
        CheckpointError, match=rf"repeats round {first - 2}; this site goes back to {first - 1}"
    ):
        states.begin(first - 2)
    assert [train(states, number) for number in range(first, 21)] == [started[n] for n in range(first, 21)]
    states.close()
