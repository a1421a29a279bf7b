"""Devices, their availability and their costs: distributions, purity, and errors before anything runs."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats

from shoal.common.errors import ConfigError
from shoal.simulations.devices.availability import DAY_S, Availability
from shoal.simulations.devices.costs import _measured, model_cost
from shoal.simulations.devices.draws import choice, from_quantiles, normal, uniform
from shoal.simulations.devices.jobs import Work, durations, spent
from shoal.simulations.devices.populations import POPULATIONS, load_devices
from shoal.simulations.devices.profiles import Devices

PHONE = Availability(a_day=2.0, never=0.3, time_zones=4)


def test_draws_are_uniform_independent_of_each_other_and_of_their_order() -> None:
    """Kolmogorov-Smirnov at 10^-6, and correlations below five standard errors of 1 / √n."""
    n = 100_000
    one = uniform(1, "a", np.arange(n), 3)
    assert stats.kstest(one, "uniform").pvalue > 1e-6
    others = [
        uniform(2, "a", np.arange(n), 3),
        uniform(1, "b", np.arange(n), 3),
        uniform(1, "a", np.arange(n), 4),
    ]
    for other in [*others, uniform(1, "a", np.arange(n) + 1, 3)]:
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(n)
    backwards = uniform(1, "a", np.arange(n)[::-1], 3)
    np.testing.assert_array_equal(backwards[::-1], one)
    assert stats.kstest(normal(1, "a", np.arange(n)), "norm").pvalue > 1e-6
    shares = np.bincount(choice(1, "a", [1, 2, 5], np.arange(n))) / n
    np.testing.assert_allclose(shares, [1 / 8, 2 / 8, 5 / 8], atol=0.01)


def test_values_by_quantiles_have_these_quantiles() -> None:
    at, values = (0.05, 0.25, 0.5, 0.75, 0.95), (1.1, 8.9, 26.0, 58.0, 241.0)
    drawn = from_quantiles(uniform(1, "q", np.arange(200_000)), at, values)
    np.testing.assert_allclose(np.quantile(drawn, at), values, rtol=0.03)


def test_availability_is_a_function_of_device_and_time_alone() -> None:
    rng = np.random.default_rng(0)
    device, time = rng.integers(0, 1000, 5000), rng.random(5000) * 5 * DAY_S
    all_at_once = PHONE.until(7, device, time)
    order = rng.permutation(5000)
    np.testing.assert_array_equal(PHONE.until(7, device[order], time[order]), all_at_once[order])
    np.testing.assert_array_equal(PHONE.until(7, device[:10], time[:10]), all_at_once[:10])
    there = ~np.isnan(all_at_once)
    assert (all_at_once[there] > time[there]).all()
    # Just before a session's end a device is still there; nothing is said of what comes after.
    still = PHONE.until(7, device[there], all_at_once[there] - 1e-3)
    assert (still >= all_at_once[there]).all()


def test_phones_are_ready_as_often_as_the_trace_says_and_most_at_night() -> None:
    """FLHetBench: 6.5 to 13.7 % ready by hour of day, with the peak at night; 29 % of devices never."""
    device = np.arange(40_000)
    phones = Availability(a_day=2.0, never=0.29)
    shares = [np.mean(~np.isnan(phones.until(1, device, 3 * DAY_S + h * 3600.0))) for h in range(24)]
    assert 0.05 < np.mean(shares) < 0.15
    assert max(shares) / min(shares) > 1.4
    assert int(np.argmax(shares)) in (23, 0, 1, 2, 3, 4, 5)
    starts, ends = phones.sessions(1, device[:, None], np.arange(6))
    ever = ~np.isnan(starts).all(axis=(1, 2))
    assert ever.mean() == pytest.approx(0.71, abs=0.02)
    lengths = (ends - starts)[~np.isnan(starts)]
    assert np.median(lengths) == pytest.approx(np.exp(7.26), rel=0.05)


def test_time_zones_shift_the_night() -> None:
    device, world = np.arange(40_000), Availability(a_day=2.0, time_zones=24)
    hours = 3 * DAY_S + 3600.0 * np.arange(0, 24, 3)
    shares = [np.mean(~np.isnan(world.until(1, device, hour))) for hour in hours]
    assert max(shares) / min(shares) < 1.15


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_population_is_the_same_for_a_seed_and_its_numbers_make_sense(name: str) -> None:
    one, again, other = load_devices(name, 2000, 1), load_devices(name, 2000, 1), load_devices(name, 2000, 2)
    np.testing.assert_array_equal(one.flops, again.flops)
    if name != "uniform":
        assert not np.array_equal(one.flops, other.flops)
    assert 1e8 < np.median(one.flops) < 1e12
    assert 1e5 < np.median(one.down) < 1e9
    # The first devices of a larger population are the same.
    np.testing.assert_array_equal(load_devices(name, 5000, 1).flops[:2000], one.flops)


def test_the_links_of_phones_have_the_published_quantiles() -> None:
    """FLASH: 3.1 / 4.3 / 10.7 Mbit/s down at 5 / 50 / 95 % (a log-normal fit, so roughly at the ends)."""
    found = load_devices("phones-2018-wifi", 50_000, 1)
    assert np.median(found.down) / 1e6 == pytest.approx(4.3, rel=0.03)
    assert np.median(found.up) / 1e6 == pytest.approx(3.3, rel=0.03)
    assert np.std(np.log(found.flops)) == pytest.approx(0.76, rel=0.03)


def test_a_mixture_and_a_file(tmp_path: Path) -> None:
    mixed = load_devices("clinics:1, iot-gateways:3", 8000, 1)
    assert mixed.kinds == ("gateway", "server")
    assert np.mean(mixed.kind == 0) == pytest.approx(0.75, abs=0.02)
    path = tmp_path / "own devices.csv"
    path.write_text("class,flops,down,up\nold,1e9,1e6,5e5\nnew,4e9,2e7,1e7\n")
    same = load_devices(str(path), 2, 1)
    assert same.flops.tolist() == [1e9, 4e9]
    assert same.kinds == ("new", "old")
    assert same.kind.tolist() == [1, 0]
    more = load_devices(str(path), 1000, 1)
    assert set(more.flops) == {1e9, 4e9}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flops,down\n1e9,-5\n", "down of device 0 is -5; expected above 0"),
        ("flops,ups\n1e9,5\n", "devices have no ups; known: flops"),
        ("loss\n1.5\n", "nothing would arrive"),
        ("flops\nfast\n", 'the column "flops" of .* has values that are no numbers'),
        ("flops\n", "must have at least one"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "devices.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_devices(str(path), 10, 1)


def test_unknown_names_and_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'unknown population of devices "clinic"\. Did you mean "clinics"'):
        load_devices("clinic", 10, 1)
    with pytest.raises(ConfigError, match='expected "name:share'):
        load_devices("clinics:many, uniform:1", 10, 1)
    with pytest.raises(ConfigError, match="same availability"):
        load_devices("clinics, wearables", 10, 1)


def test_a_job_takes_what_the_formula_says_and_its_parts_add_up() -> None:
    """2 steps of (0.5 s + 4e9 / 2e9) = 5 s; down 1 s + 8e6 bits / 4e6 = 3 s; up 1 s + 4e6 / 2e6 = 3 s.

    Where half of all bits are sent again, and again: up 1 s + 2 · 4e6 / 2e6 = 5 s.
    """
    devices = Devices.of(1, {"flops": 2e9, "step_s": 0.5, "down": 4e6, "up": 2e6, "latency_s": 1.0,
                             "compute_w": 2.0, "radio_w": 0.5})  # fmt: skip
    lossy = Devices.of(1, {"up": 2e6, "latency_s": 1.0, "loss": 0.5})
    work, device = Work(4e9, np.array([2.0]), 1e6, 0.5e6), np.zeros(1, np.int64)
    found = durations(devices, work, 1, device, device)
    assert (found.down[0], found.train[0], found.up[0]) == pytest.approx((3.0, 5.0, 3.0))
    assert durations(lossy, work, 1, device, device).up[0] == pytest.approx(5.0)
    down, up, joules = spent(np.array([4.0]), found, devices, work, device)
    assert (down[0], up[0], joules[0]) == pytest.approx((1e6, 0.0, 3 * 0.5 + 1 * 2.0))
    down, up, joules = spent(np.array([11.0]), found, devices, work, device)
    assert (down[0], up[0], joules[0]) == pytest.approx((1e6, 0.5e6, 6 * 0.5 + 5 * 2.0))


def mlp() -> keras.Model:
    return keras.Sequential([keras.Input((20,)), layers.Dense(64, activation="relu"), layers.Dense(3)])


def cnn() -> keras.Model:
    return keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(),
         layers.Conv2D(32, 3, padding="same"), layers.DepthwiseConv2D(3), layers.GlobalAveragePooling2D(),
         layers.Dense(10)]
    )  # fmt: skip


@pytest.mark.parametrize("make", [mlp, cnn])
def test_operations_by_formula_are_those_of_the_graph(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    assert model_cost(model).forward == pytest.approx(_measured(model, model.input_shape[1:]), rel=0.01)
    assert model_cost(model).weights == model.count_params()
    assert model_cost(model).measured == ()


def test_loops_are_multiplied_and_attention_grows_with_the_square_of_the_length() -> None:
    """An LSTM's step is one product of (inputs + units) · 4 units; the graph shows its loop once."""
    model = keras.Sequential([keras.Input((40, 32)), layers.LSTM(64)])
    products = 40 * 2 * 4 * 64 * (32 + 64)
    assert products < model_cost(model).forward < 1.05 * products
    assert model_cost(model).forward == pytest.approx(40 * _measured(model, (40, 32)), rel=0.05)

    def attention(length: int) -> float:
        inputs = keras.Input((length, 64))
        outputs = layers.MultiHeadAttention(4, 16)(inputs, inputs)
        return model_cost(keras.Model(inputs, outputs)).forward

    # 4 projections of 64 x 64 for each place, and 2 · 2 · length² · 64 for scores and their use
    for length in (10, 20):
        assert attention(length) == pytest.approx(8 * length * 64**2 + 4 * length**2 * 64, rel=0.1)


def test_a_layer_without_formula_is_measured_and_named() -> None:
    class Own(keras.layers.Layer):
        def build(self, shape: tuple[int, ...]) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 7), name="kernel")

        def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
            return keras.ops.matmul(inputs, self.kernel)

    inputs = keras.Input((20,))
    found = model_cost(keras.Model(inputs, Own(name="mine")(inputs)))
    assert found.measured == ("mine",)
    assert found.forward == pytest.approx(2 * 20 * 7, rel=0.05)


def test_memory_counts_weights_slots_and_activations() -> None:
    """Above the base: 4 bytes · (weights · (2 + slots) + 2 · outputs · batch), with 64 + 3 outputs."""
    found = model_cost(mlp())
    assert found.activations == 64 + 3
    for optimizer, slots in (("sgd", 0), ("adam", 2)):
        expected = 4 * (found.weights * (2 + slots) + 2 * 67 * 32)
        assert found.memory(32, optimizer) - found.memory(0, "sgd") + 8 * found.weights == pytest.approx(
            expected
        )
