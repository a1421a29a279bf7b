"""Whatever devices, work and policy: no device is in two places, none works offline, time runs forward."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.common.errors import ConfigError
from shoal.simulations.devices.availability import Availability
from shoal.simulations.devices.draws import choice, uniform
from shoal.simulations.devices.jobs import Work, durations
from shoal.simulations.devices.policy import ClockPolicy, JobOutcome
from shoal.simulations.devices.profiles import Devices
from shoal.simulations.devices.summary import gini, summarise
from shoal.simulations.devices.timeline import Timeline, simulate

policies = st.one_of(
    st.builds(ClockPolicy, st.just("sync"), st.integers(1, 12), st.floats(1, 2)),
    st.builds(ClockPolicy, st.just("deadline"), st.integers(1, 12), st.floats(1, 2), st.floats(1, 300),
              st.floats(0.1, 1)),
    st.builds(ClockPolicy, st.just("buffered"), st.integers(1, 5), concurrency=st.integers(1, 20),
              max_staleness=st.sampled_from([0, 1, 3, 1000])),
)  # fmt: skip


def population(count: int, seed: int, availability: Availability) -> Devices:
    index = np.arange(count)
    values = {
        "flops": 1e9 * (0.1 + uniform(seed, "f", index)), "step_s": 0.1, "down": 1e6, "up": 5e5,
        "latency_s": 0.5, "memory": 1e9 * uniform(seed, "m", index), "variation": 0.2, "link_variation": 0.5,
        "compute_w": 2.0, "radio_w": 1.0, "availability": availability,
    }  # fmt: skip
    return Devices.of(count, values)


@settings(max_examples=60, deadline=None)
@given(
    policy=policies, count=st.integers(3, 60), seed=st.integers(0, 1000),
    availability=st.sampled_from(
        [Availability(), Availability(a_day=3.0, log_mean=9.0), Availability(never=0.2)]
    ),
)  # fmt: skip
def test_a_timeline_is_possible(
    policy: ClockPolicy, count: int, seed: int, availability: Availability
) -> None:
    devices = population(count, seed, availability)
    work = Work(2e9, np.full(count, 10.0), 1e5, 1e5, memory=1e8)
    try:
        found = simulate(devices, work, policy, 12, seed)
    except ConfigError:  # nobody is ever online, or nobody has the memory
        return
    jobs = found.jobs
    assert (jobs.end >= jobs.start).all()
    assert (np.diff(found.versions) >= 0).all()
    assert (devices.memory[jobs.device] >= work.memory).all()
    assert (np.diff(jobs.start) >= 0).all()
    # No device is in two places at once.
    for device in np.unique(jobs.device):
        own = np.flatnonzero(jobs.device == device)
        order = own[np.argsort(jobs.start[own], kind="stable")]
        assert (jobs.start[order[1:]] >= jobs.end[order[:-1]] - 1e-6).all()
    # None works while it is offline.
    until = availability.until(seed, jobs.device, jobs.start)
    assert (jobs.end <= until + 1e-6).all()
    # A used reply arrived before its version was made, and started from a version made before it.
    used = jobs.outcome == JobOutcome.USED
    assert ((jobs.made > 0) == used).all()
    assert (jobs.end[used] <= found.versions[jobs.made[used] - 1] + 1e-6).all()
    started = jobs.version > 0
    assert (jobs.start[started] >= found.versions[jobs.version[started] - 1] - 1e-6).all()
    assert (jobs.version[used] < jobs.made[used]).all()
    if policy.kind == "buffered":
        assert (jobs.made[used] - 1 - jobs.version[used] <= policy.max_staleness).all()
        assert (np.bincount(jobs.made[used])[1:] == min(policy.clients, count - found.excluded)).all()
        both = np.concatenate([np.ones(len(jobs.start)), -np.ones(len(jobs.end))])
        at = np.lexsort((both, np.concatenate([jobs.start, jobs.end])))
        assert np.cumsum(both[at]).max() <= policy.concurrency
    # What was used was sent whole; nothing takes more than all of it.
    assert found.bytes_up[used] == pytest.approx(work.bytes_up)
    assert found.bytes_down.max() <= work.bytes_down * (1 + 1e-9)
    again = simulate(devices, work, policy, 12, seed)
    np.testing.assert_array_equal(again.jobs.end, jobs.end)
    assert 0 <= summarise(found, devices).gini < 1 or not used.any()


def service(kind: str, count: int) -> Devices:
    seconds = {"exponential": -100 * np.log(uniform(3, "s", np.arange(count)))}
    return Devices.of(count, {"step_s": seconds[kind]})


def done(policy: ClockPolicy, devices: Devices, versions: int) -> Timeline:
    return simulate(devices, Work(0.0, np.ones(len(devices)), 0.0, 0.0), policy, versions, 1)


def test_throughput_and_round_time_of_exponential_service_are_those_of_queueing_theory() -> None:
    """With mean s = 100: c places serve c / s jobs a second; a round of n takes s · H_n, the maximum's mean.

    Of m = 1.5 n asked, the n-th arrival comes after s · (H_m - H_{m-n}). Standard errors: 1 / √40,000 = 0.5 %
    for the jobs, 0.43 / √3000 = 0.8 % for the maxima; 2 % are allowed.
    """
    devices = service("exponential", 200_000)
    buffered = done(ClockPolicy("buffered", 10, concurrency=50), devices, 4000)
    assert 40_000 / buffered.versions[-1] == pytest.approx(50 / 100, rel=0.02)
    rounds = done(ClockPolicy("sync", 10), devices, 3000)
    harmonic = sum(1 / k for k in range(1, 11))
    assert rounds.versions[-1] / 3000 == pytest.approx(100 * harmonic, rel=0.02)
    more = done(ClockPolicy("sync", 10, over_selection=1.5), devices, 3000)
    expected = 100 * sum(1 / k for k in range(6, 16))
    assert more.versions[-1] / 3000 == pytest.approx(expected, rel=0.02)


def test_the_experiment_of_nvflare_takes_the_time_that_they_measured() -> None:
    """16 of many devices that need 100, 200 or 400 s (1 % variation) and 5 s of transfer: 408.4 s a round.

    Asynchronously, 16 at work: a version of each reply, 238.3 s for 16 of them, the mean of the job.
    """
    kind = choice(1, "kind", [1, 1, 1], np.arange(10_000))
    seconds = np.array([100.0, 200.0, 400.0])[kind]
    devices = Devices.of(10_000, {"step_s": seconds, "variation": 0.01, "latency_s": 2.5})
    assert done(ClockPolicy("sync", 16), devices, 300).versions[-1] / 300 == pytest.approx(408.4, rel=0.01)
    buffered = done(ClockPolicy("buffered", 1, concurrency=16), devices, 16_000)
    assert buffered.versions[-1] / 1000 == pytest.approx(238.3, rel=0.01)


def test_what_nobody_can_meet_is_an_error_or_an_honest_result() -> None:
    devices = population(40, 1, Availability())
    work = Work(2e9, np.full(40, 10.0), 1e5, 1e5)
    shortest = durations(devices, work, 1, np.arange(40), np.arange(40)).whole.min()
    found = simulate(devices, work, ClockPolicy("deadline", 10, deadline_s=shortest / 10), 5, 1)
    assert (len(found.versions), found.failed_rounds) == (0, 5)
    assert math.isnan(found.hours)
    nobody = population(40, 1, Availability(never=1.0))
    with pytest.raises(ConfigError, match="there were never 5 devices online"):
        simulate(nobody, work, ClockPolicy("sync", 10), 5, 1)
    with pytest.raises(ConfigError, match="no device was online"):
        simulate(
            population(40, 1, Availability(never=1.0)), work, ClockPolicy("buffered", 2, concurrency=5), 5, 1
        )
    heavy = Work(2e9, np.full(40, 10.0), 1e5, 1e5, memory=1e12)
    with pytest.raises(ConfigError, match="training needs 1,000,000 MB, more than any of the 40 devices has"):
        simulate(devices, heavy, ClockPolicy("sync", 10), 5, 1)
    for policy, says in [
        (ClockPolicy("sync", 0), "clients of a version"),
        (ClockPolicy("sync", 5, 0.5), "over-selection"),
        (ClockPolicy("deadline", 5), "deadline: expected seconds"),
        (ClockPolicy("buffered", 5), "concurrency"),
    ]:
        with pytest.raises(ConfigError, match=says):
            simulate(devices, work, policy, 5, 1)


def test_gini_of_known_shares() -> None:
    """Equal shares: 0. One of n has all: (n - 1) / n. (1, 3): |1 - 3| / (2 · 2) = 1/4 · ... = 0.25."""
    assert gini(np.array([4, 4, 4])) == 0
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)
    assert gini(np.array([1, 3])) == pytest.approx(0.25)
    assert math.isnan(gini(np.zeros(3)))
