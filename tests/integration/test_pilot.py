"""A pilot as people run it: `shoal serve` and `shoal client` in processes of their own, over mutual TLS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from waiting import until

from benchmarks.compose import free_port
from benchmarks.pilot_demo import simulate as sites_as_simulation
from shoal import cli
from shoal.clients.pilot.site_data import load_site, read_schema
from shoal.common.audit.check import Chain, compare, read_chain
from shoal.common.audit.log import AUDIT_LOG
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError, DataError, RunError, UnreadableDataError
from shoal.common.schema import Schema
from shoal.common.tabular.file_format import FileFormat
from shoal.common.wire.agreement import agreement
from shoal.server.pilot.grpc_server import Policy, TransportServer
from shoal.simulations import datasets
from shoal.simulations.datasets.site_files import write_sites
from shoal.simulations.results import RunFolder
from shoal.simulations.run import resume_run

SITES = ("SVI", "SVHC", "STMW")
SHORT = ("training.rounds=4", "training.local_epochs=1", "output.bootstrap=20", "output.compare=false")


def thyroid(*overrides: str) -> Scenario:
    return load_scenario("medical-thyroid", [*SHORT, *overrides])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites")
    write_sites(datasets.load_population(thyroid()), folder, FileFormat())
    return folder


def test_a_site_reads_from_its_file_what_the_simulation_has(files: Path) -> None:
    population = datasets.load_population(thyroid())
    schema = read_schema(files / "schema.json")
    assert schema == population.schema
    for client in range(len(population)):
        expected = population.shard(client)
        found = load_site(files / f"{population.name(client)}.csv", schema, thyroid())
        np.testing.assert_array_equal(found.labels, expected.labels)
        for name, values in expected.columns.items():
            np.testing.assert_array_equal(found.columns[name], values)


def test_a_site_s_file_that_does_not_fit_is_refused_without_its_values(files: Path, tmp_path: Path) -> None:
    schema = read_schema(files / "schema.json")
    header, *rows = (files / "STMW.csv").read_text().splitlines()
    names = header.replace('"', "").split(",")
    wrong = tmp_path / "site.csv"
    label, number = names.index(schema.label), names.index(schema.names("numeric")[0])

    def written(place: int, value: str) -> Path:
        first = rows[0].split(",")
        first[place] = value
        wrong.write_text("\n".join([header, ",".join(first), *rows[1:]]))
        return wrong

    with pytest.raises(DataError, match=r"1 of \d+ rows have a label .* not one of the") as caught:
        load_site(written(label, "SECRET"), schema, thyroid().model_copy(update={"data": plain()}))
    assert "SECRET" not in str(caught.value)
    with pytest.raises(UnreadableDataError, match=r"1 of \d+ rows have no number") as odd:
        load_site(written(number, "SECRET"), schema, thyroid())
    assert "SECRET" not in str(odd.value)
    wrong.write_text("\n".join([header.replace(names[0], "other"), *rows]))
    with pytest.raises(ConfigError, match=f'unknown column "{names[0]}"'):
        load_site(wrong, schema, thyroid())


def plain() -> object:
    return thyroid().data.model_copy(update={"positive": None})


def test_what_both_sides_must_agree_on() -> None:
    schema = Schema((), "binary", ("a", "b"), "y")
    mine = agreement(thyroid(), schema)
    assert mine == agreement(thyroid("output.directory=x", "resources.workers=1", "data.path=x"), schema)
    assert mine != agreement(thyroid("training.batch_size=7"), schema)
    assert mine != agreement(thyroid(), Schema((), "binary", ("a", "c"), "y"))


class Pilot:
    """Starts the processes of a pilot, and ends them."""

    def __init__(self, folder: Path, sites: Path, port: int) -> None:
        self.folder = folder
        self.sites = sites
        self.address = f"127.0.0.1:{port}"
        self.running: dict[str, subprocess.Popen[str]] = {}

    def shoal(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        given = [a for text in SHORT for a in ("--set", text)] if name != "certs" else []
        command = [sys.executable, "-m", "shoal", *arguments, *given]
        with (self.folder / f"{name}.txt").open("a") as out:
            self.running[name] = subprocess.Popen(
                command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment()
            )
        return self.running[name]

    def tls(self, name: str) -> list[str]:
        return ["--ca", "keys/ca.crt", "--cert", f"keys/{name}.crt", "--key", f"keys/{name}.key"]

    def serve(self, *more: str) -> None:
        clients = [a for site in SITES for a in ("--client", site)]
        where = ["--schema", str(self.sites / "schema.json"), "--listen", self.address, "--quiet", *more]
        self.shoal("server", "serve", "medical-thyroid", *clients, *where, *self.tls("server"))

    def client(self, site: str) -> None:
        where = ["--schema", str(self.sites / "schema.json"), "--server", self.address]
        data = ["--data", str(self.sites / f"{site}.csv"), "--log", f"{site}.jsonl"]
        self.shoal(site, "client", "medical-thyroid", *where, *data, *self.tls(site))

    def wait_for_round(self, number: int) -> None:
        def there() -> bool:
            assert self.running["server"].poll() is None, self.said("server")
            return round_of(self.folder) >= number

        until(there, 120, lambda: self.said("server"))

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text()

    def close(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}


def test_a_pilot_whose_client_and_server_are_killed_gives_the_bits_of_the_simulation(
    files: Path, tmp_path: Path
) -> None:
    pilot = Pilot(tmp_path, files, free_port())
    try:
        names = [a for site in SITES for a in ("--client", site)]
        assert pilot.shoal("certs", "certs", "keys", "--host", "127.0.0.1", *names).wait(60) == 0
        pilot.serve()
        for site in SITES:
            pilot.client(site)
        pilot.wait_for_round(1)
        pilot.running["SVHC"].send_signal(signal.SIGKILL)
        pilot.running["SVHC"].wait()
        pilot.client("SVHC")
        pilot.wait_for_round(2)
        pilot.running["server"].send_signal(signal.SIGKILL)
        pilot.running["server"].wait()
        (path,) = (tmp_path / "runs").iterdir()
        pilot.serve("--resume", str(path))
        assert pilot.running["server"].wait(200) == 0, pilot.said("server")
        for site in SITES:
            assert pilot.running[site].wait(30) == 0, pilot.said(site)
    finally:
        pilot.close()
    run = RunFolder(path)
    assert run.status() == "finished"
    assert (path / "report.html").stat().st_size > 100_000
    simulated = simulate(files, tmp_path)
    assert [row.metrics for row in run.round_rows()] == [row.metrics for row in simulated.round_rows()]
    losses = [[row.train_loss for row in r.round_rows()[1:]] for r in (run, simulated)]  # NaN before round 1
    assert losses[0] == losses[1]
    for here, there in zip(run.sites(), simulated.sites(), strict=True):
        assert repr(here.tests) == repr(there.tests)  # of the last digit; == would not take NaN
    with pytest.raises(RunError, match="shoal serve --resume"):
        resume_run(RunFolder(path), run.scenario())
    # 77 inputs of the encoded columns, hidden = [64, 32], one output: 77·64 + 64 + 64·32 + 32 + 32 + 1.
    assert "model has 7,105 weights: 77×64, 64, 64×32, 32, 32×1, 1" in pilot.said("SVI")
    logs = {site: read_chain(tmp_path / f"{site}.jsonl").require_whole() for site in SITES}
    left = [entry for entry in logs["SVI"].messages() if entry["direction"] == "sent"]
    # statistics; evaluation before the first round; training and evaluation of four rounds; test
    kinds = ["query.statistics", "evaluate", *["train", "evaluate"] * 4, "evaluate.test"]
    # The killed server may have asked for what it did not live to note: that is asked again.
    assert [kind for kind in kinds if kind not in (entry["kind"] for entry in left)] == []
    assert len(kinds) <= len(left) <= len(kinds) + 2
    assert all(entry["bytes"] > 0 for entry in left)
    purposes = {entry["purpose"] for entry in left if entry["kind"] == "train" and entry["round"] == 4}
    assert purposes == {"round 4: train the global model on local rows"}
    check_that_both_sides_logged_the_same(read_chain(path / AUDIT_LOG).require_whole(), logs)


def check_that_both_sides_logged_the_same(server: Chain, logs: dict[str, Chain]) -> None:
    begins = {name: [e["event"] for e in chain.entries].count("begin") for name, chain in logs.items()}
    assert begins == {"SVI": 1, "SVHC": 2, "STMW": 1}  # SVHC was killed, and went on with its log
    assert [entry["event"] for entry in server.entries].count("begin") == 2
    assert server.ended
    for chain in logs.values():
        assert chain.ended
        found = compare(server, chain)
        assert found.unsent == []  # nothing came from nowhere
        # Lost with a process that was killed: a task and an answer at most, of each kill.
        assert len(found.unreceived) <= 4
        assert found.agreeing >= 2 * 11  # of `kinds`, asked and answered


def round_of(folder: Path) -> int:
    found = [RunFolder(path.parent).round_rows() for path in (folder / "runs").glob("*/events.jsonl")]
    return max((row.round for rows in found for row in rows), default=-1)


def simulate(files: Path, tmp_path: Path) -> RunFolder:
    """Run the same three sites in this process, from their files."""

    config = thyroid("resources.backend=serial", f"output.directory={tmp_path / 'simulated'}")
    return sites_as_simulation(files, list(SITES), config)


@pytest.mark.parametrize(
    ("arguments", "typed", "reason"),
    [
        (["--ask"], "n\n", "not approved by the operator: this site has sent nothing"),
        (["--least-clients", "4"], "", "lists 3 clients, but this site requires at least 4"),
    ],
)
def test_a_site_that_does_not_agree_takes_no_part_and_nothing_leaves(
    files: Path, tmp_path: Path, arguments: list[str], typed: str, reason: str
) -> None:
    schema = read_schema(files / "schema.json")
    policy = Policy(SITES, insecure=True)
    server = TransportServer("127.0.0.1:0", None, policy, "1.0", agreement(thyroid(), schema))
    where = ["--server", f"127.0.0.1:{server.port}", "--insecure", "--name", "SVI"]
    data = ["--data", str(files / "SVI.csv"), "--schema", str(files / "schema.json")]
    given = [word for setting in SHORT for word in ("--set", setting)]
    command = [sys.executable, "-m", "shoal", "client", "medical-thyroid", *where, *data, *given]
    try:
        found = subprocess.run(
            [*command, *arguments],
            input=typed,
            cwd=tmp_path,
            env=environment(),
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )
    finally:
        server.close()
    assert found.returncode == 14, found.stderr  # DisclosureError
    assert reason in found.stderr
    if "--ask" in arguments:
        assert "This site will send only:" in found.stdout
        assert "up to 4 rounds, local_epochs = 1" in found.stdout
    assert not (tmp_path / "messages.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "127.0.0.1:0"], "--ca, --cert and --key are required"),
        (["--listen", "0.0.0.0:9443", "--insecure"], "--insecure works on 127.0.0.1 only"),
    ],
)
def test_a_server_without_keys_is_refused(
    files: Path, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = str(files / "schema.json")
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", "medical-thyroid", "--schema", schema, "--client", "SVI", *arguments])
    assert ended.value.code == ConfigError.exit_code
    assert reason in capsys.readouterr().err
