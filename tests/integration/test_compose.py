"""The services of docker-compose.yml, run as processes with the commands that stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.compose import ROOT, Composed
from benchmarks.pilot_demo import differences, pilot, simulate
from shoal.simulations.results import RunFolder

SMALL = ("training.local_epochs=1", "output.bootstrap=20", "output.compare=false")


def _settings(*settings: str) -> list[str]:
    return [word for setting in (*SMALL, *settings) for word in ("--set", setting)]


SHORT = _settings("training.rounds=3")
# Work goes to whichever worker has started: a short run is over before the second of two is there.
LONG = _settings("training.rounds=200")


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    found = Composed(tmp_path, {"serve": SHORT, "client": SHORT, "run": LONG})
    yield found
    found.close()


@pytest.mark.slow
def test_the_pilot_has_the_results_of_the_simulation_though_a_site_is_killed(composed: Composed) -> None:
    told: list[str] = []
    run = pilot(composed, told.append)
    assert any("SVHC killed after round" in text for text in told)
    assert run.status() == "finished"
    scenario = run.scenario()
    resources = scenario.resources.model_copy(update={"backend": "serial"})
    output = scenario.output.model_copy(update={"directory": str(composed.folder / "simulated")})
    simulated = simulate(
        composed.folder / "runs/pilot/sites",
        ["SVI", "SVHC", "STMW"],
        scenario.model_copy(update={"resources": resources, "output": output}),
    )
    assert differences(run, simulated) == []


@pytest.mark.slow
def test_the_cluster_runs_the_scenario_over_its_workers(composed: Composed) -> None:
    composed.up("driver")
    composed.wait("driver")
    (events,) = (composed.folder / "runs").glob("*/events.jsonl")
    run = RunFolder(events.parent)
    assert run.status() == "finished"
    loads = run.summary()["placement"]
    assert [load["workers"] for load in loads] == [1, 1]
    assert all(load["messages"] for load in loads)


def test_what_is_said_of_the_file_names_its_services() -> None:
    file = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    profiles = {name: service.get("profiles", []) for name, service in file["services"].items()}
    for page in ("docker-compose.yml", "README.md", "docs/transport.md", "docs/cluster.md"):
        for profile, rest in re.findall(r"--profile (\w+) up ([^`\n]*)", (ROOT / page).read_text()):
            named = [word for word in rest.split() if word in profiles]
            assert named, f"{page}: no service is named after --profile {profile} up"
            assert all(profile in profiles[name] for name in named)


def test_a_container_has_what_the_image_is_made_of() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    assert all((ROOT / name).exists() for line in copied for name in line.split())
