"""`shoal timeline`: from a scenario's real model, rows and codec to hours, bytes and who takes part."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError
from shoal.simulations import datasets
from shoal.simulations.cli import app
from shoal.simulations.devices.workload import workload


def test_the_work_is_that_of_the_real_model_rows_and_codec() -> None:
    """y = w x + b: 2 + 1 operations a row forward, three times that in all, batches of 20: 180 a step.

    Clients have 100 rows, of which 70 are for training: 4 batches of 20 an epoch.
    """
    settings = ["training.batch_size=20", "training.local_epochs=2"]
    plain = load_scenario("linear", settings)
    population = datasets.load_population(plain)
    found = workload(plain, population, 25)
    assert found.cost.forward == 3
    assert found.work.flops_per_step == 180
    assert found.work.steps.tolist() == [8.0] * 25


def test_bytes_are_those_of_the_codec_and_of_the_messages_on_the_wire() -> None:
    """A weight takes 4, 2 and 1 bytes; descriptions take under 1 kB."""
    loaded = {
        name: load_scenario("medical-thyroid", [f"update.compress={name}"])
        for name in ("none", "float16", "int8")
    }
    population = datasets.load_population(loaded["none"])
    found = {name: workload(one, population, 5) for name, one in loaded.items()}
    weights = found["none"].cost.weights
    assert weights > 7000
    for name, size in (("none", 4), ("float16", 2), ("int8", 1)):
        assert weights * size < found[name].work.bytes_up < weights * size + 1000
    assert found["int8"].work.bytes_down > 4 * weights + 1000  # weights in full, and the preprocessing


def test_the_command_compares_policies_and_writes_timelines(tmp_path: Path) -> None:
    folder = tmp_path / "time lines"
    given = ["timeline", "linear", "--devices", "phones-2018-wifi", "--count", "2000", "--clients", "20"]
    said = CliRunner().invoke(app, [*given, "--rounds", "4", "--out", str(folder)])
    assert said.exit_code == 0, said.output
    for text in ("A job:", "virtual time", "sync", "deadline", "buffered", "slow phone", "Timelines:"):
        assert text in said.output
    for name in ("sync", "deadline", "buffered"):
        table = pq.read_table(folder / f"{name}.parquet")
        assert table.column("outcome").to_pylist().count("used") <= 80
        events = json.loads((folder / f"{name}-trace.json").read_text())["traceEvents"]
        assert {event["ph"] for event in events} == {"X", "M"}
    used = pq.read_table(folder / "buffered.parquet").column("outcome").to_pylist().count("used")
    assert used == 80  # as many replies as four rounds of 20
    again = CliRunner().invoke(app, [*given, "--rounds", "4", "--out", str(tmp_path / "again")])
    assert pq.read_table(tmp_path / "again" / "sync.parquet") == pq.read_table(folder / "sync.parquet")
    assert again.output.split("Timelines")[0] == said.output.split("Timelines")[0]


def test_an_unknown_policy_or_population_is_an_error_with_the_nearest_name() -> None:
    for option, name, nearest in (
        ("--policies", "bufered", "buffered"),
        ("--devices", "wearable", "wearables"),
    ):
        with pytest.raises(ConfigError, match=f'Did you mean "{nearest}"'):
            CliRunner().invoke(app, ["timeline", "linear", option, name], catch_exceptions=False)
