"""The same apps under `flwr run`: a SuperLink and two SuperNodes with TLS and node authentication."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compose import ROOT
from benchmarks.pilot_demo import differences, simulate
from benchmarks.superlink import SuperLink
from shoal.common.audit.check import read_chain
from shoal.common.audit.log import AUDIT_LOG
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError
from shoal.common.tabular.file_format import FileFormat
from shoal.simulations import datasets
from shoal.simulations.datasets.site_files import write_sites
from shoal.simulations.results import RunFolder
from shoal.simulations.superlink import _scenario

SITES = ["SVI", "STMW"]  # two: a SuperNode starts a process, which imports TensorFlow, for each message
SETTINGS = ["training.rounds=1", "training.local_epochs=1", "output.bootstrap=20", "output.compare=false"]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("privacy.unit=record; privacy.epsilon=3", 'privacy.unit = "record"'),
        ("privacy.unit=local; privacy.epsilon=3", 'privacy.unit = "local"'),
        ("secure.aggregation=true", "secure.aggregation = true"),
    ],
)
def test_what_protects_against_the_server_is_refused_where_the_submitter_rules(
    setting: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=f"{named}: under `flwr run`"):
        _scenario("medical-thyroid", setting)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ends processes as Linux lists them")
def test_flwr_run_gives_the_results_of_the_simulation(tmp_path: Path) -> None:
    sites = tmp_path / "sites"
    scenario = load_scenario("medical-thyroid", SETTINGS)
    write_sites(datasets.load_population(scenario), sites, FileFormat())
    schema = sites / "schema.json"
    link = SuperLink(tmp_path)
    try:
        link.up({n: f'name="{n}" data="{sites / n}.csv" schema="{schema}"' for n in SITES})
        given = {"clients": ",".join(SITES), "schema": schema, "output": tmp_path / "runs"}
        config = " ".join(f'{key}="{value}"' for key, value in given.items())
        config += f' settings="{"; ".join(SETTINGS)}"'
        said = link.run(ROOT, config, timeout_s=250)
    finally:
        link.close()
    folders = list((tmp_path / "runs").glob("*/events.jsonl"))
    assert len(folders) == 1, said
    run = RunFolder(folders[0].parent)
    assert run.status() == "finished", said
    resources = scenario.resources.model_copy(update={"backend": "serial", "execution_mode": "sequential"})
    output = scenario.output.model_copy(update={"directory": str(tmp_path / "simulated")})
    simulated = simulate(sites, SITES, scenario.model_copy(update={"resources": resources, "output": output}))
    assert differences(run, simulated) == []
    # The SuperLink's messages are not ours: the server logs them as what would go over our wire.
    entries = read_chain(run.path / AUDIT_LOG).require_whole().messages()
    received = [entry for entry in entries if entry["direction"] == "received"]
    # Statistics; evaluation of the untrained model; training and evaluation of one round; the test.
    assert [entry["kind"] for entry in received] == [
        kind for kind in ("query.statistics", "evaluate", "train", "evaluate", "evaluate.test") for _ in SITES
    ]
    assert [entry["peer"] for entry in received[: len(SITES)]] == SITES
