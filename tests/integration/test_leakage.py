"""Attacks succeed on a run without protection, and the same attacks fail on a protected one."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal import cli
from shoal.clients.runtime import ClientRuntime
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import EmptyClientError, RunError
from shoal.simulations import datasets
from shoal.simulations.cli.leakage import leakage
from shoal.simulations.leakage.audit import ATTACKS, Effort, measure_leakage
from shoal.simulations.leakage.populations import Enlarged
from shoal.simulations.report.facts import Facts
from shoal.simulations.report.sentences import attacks
from shoal.simulations.results import RunFolder
from shoal.simulations.run import run_scenario

# Labels are coins, so that whatever the model knows of a row it has from the row itself.
SCENARIO = """
name = "leaky"
[data]
source = "noise_rows:load"
test_fraction = 0.4
validation_fraction = 0.0   # else the round before memorising is the best
args = {rows = 60, seed = 3}
[model]
name = "mlp"
args = {hidden = [128]}
[training]
rounds = 12
local_epochs = 15
batch_size = 16
optimizer = "adam"
learning_rate = 0.01
[resources]
backend = "serial"
[output]
bootstrap = 0
"""
EFFORT = Effort(shadows=4, canaries=72)

# What stands between rows and the model: a new protection is one more row.
PROTECTIONS: Mapping[str, tuple[str, ...]] = {
    "noise": ("update.clip_norm=0.5", "update.noise_stddev=0.5"),
    "client": ('privacy.unit="client"', "privacy.epsilon=1.0"),
    "record": ('privacy.unit="record"', "privacy.epsilon=1.0"),
    "local": ('privacy.unit="local"', "privacy.epsilon=1.0"),
}
TRUSTS_THE_SERVER = ("client",)  # its noise comes after the update that is attacked


def scenario(folder: Path, *overrides: str) -> Scenario:
    path = folder / "leaky.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    return load_scenario(path, [f"output.directory={json.dumps(str(folder / 'runs'))}", *overrides])


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder.open(run_scenario(scenario(tmp_path_factory.mktemp("leaky"))))


@pytest.fixture(scope="module")
def told(leaky: RunFolder) -> dict[str, Any]:
    return measure_leakage(leaky, effort=EFFORT)["attacks"]


def auc(found: Mapping[str, Any]) -> float:
    return float(found["overall"]["auc"]["value"])


def test_members_of_an_overfitted_run_are_found(told: dict[str, Any]) -> None:
    """4 sites of 60 rows: 36 train, 24 are held out.

    A model that knows its rows by heart guesses half of the others' coins, who then look like members: of
    the pairs a loss threshold orders that half by chance, and the other half rightly, 3/4 in all.
    """
    assert (told["membership"]["overall"]["members"], told["membership"]["overall"]["others"]) == (144, 96)
    assert 0.7 < auc(told["membership"]) < 0.85
    assert told["membership"]["overall"]["auc"]["low"] > 0.65
    assert auc(told["lira"]["online"]) > 0.75
    assert auc(told["lira"]["offline"]) > 0.75
    assert set(told["membership"]["clients"]) == {f"site-{k}" for k in range(4)}


def test_a_single_row_is_read_off_its_update(told: dict[str, Any]) -> None:
    one, four = told["inversion"]["sizes"]
    assert one["attack"]["found"] == 1
    assert one["attack"]["error"] < 0.01 < one["guess"]["error"]
    assert one["guess"]["found"] == 0
    assert four["attack"]["found"] > 0.3


def test_canaries_show_that_no_small_epsilon_holds(told: dict[str, Any]) -> None:
    found = told["canary"]
    assert found["canaries"] == 72
    assert 0.5 < found["epsilon_at_least"] <= found["most"]
    assert 0 < found["included"] < 72


@pytest.mark.parametrize("name", PROTECTIONS)
def test_the_same_attacks_on_a_protected_run_fail(name: str, tmp_path: Path) -> None:
    run = RunFolder.open(run_scenario(scenario(tmp_path, *PROTECTIONS[name])))
    content = measure_leakage(run, effort=EFFORT)
    found, promised = content["attacks"], content["promised"]["epsilon"]
    assert auc(found["membership"]) < 0.6
    assert auc(found["lira"]["online"]) < 0.6
    assert auc(found["lira"]["offline"]) < 0.6
    one, four = found["inversion"]["sizes"]
    if name in TRUSTS_THE_SERVER:
        assert one["attack"]["found"] == 1
    else:
        assert one["attack"]["cosine"] < 0.5  # 1.000 without protection
        assert four["attack"]["found"] < 0.2
    assert found["canary"]["unit"] == ("client" if name == "client" else "row")
    assert found["canary"]["epsilon_at_least"] <= (0.3 if promised is None else promised)


def test_the_same_seed_gives_the_same_numbers_and_another_audit_overwrites(
    leaky: RunFolder, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(leaky.path, tmp_path / "copy"))
    run = RunFolder.open(copy)
    files = []
    for _ in range(2):
        measure_leakage(run, ["membership", "inversion", "canary"], ["site-1"], 7, Effort(canaries=20))
        files.append((copy / "leakage.json").read_text(encoding="utf-8"))
    assert files[0] == files[1]
    assert run.leakage()["clients"] == ["site-1"]
    before = run.leakage()["attacks"].pop("inversion")
    assert measure_leakage(run, ["inversion"], ["site-1"], 8)["attacks"].keys() == {"inversion"}
    assert run.leakage()["attacks"]["inversion"] != before


def test_no_row_is_kept(leaky: RunFolder, told: dict[str, Any]) -> None:
    """Each list in leakage.json is a curve or a list of names; a row would be one of 20 numbers."""

    def lists(value: Any) -> list[list[Any]]:
        if isinstance(value, dict):
            return [found for item in value.values() for found in lists(item)]
        return [value, *(found for item in value for found in lists(item))] if isinstance(value, list) else []

    content = leaky.leakage()
    numbers = [found for found in lists(content) if found and all(isinstance(v, float | int) for v in found)]
    curves = [told["membership"], told["lira"]["online"], told["lira"]["offline"]]
    assert numbers == [found["roc"][axis] for found in curves for axis in ("fpr", "tpr")]


def test_the_report_shows_what_was_found(leaky: RunFolder, told: dict[str, Any]) -> None:
    report = (leaky.path / "report.html").read_text(encoding="utf-8")
    assert "What attacks found" in report
    assert "The run has no privacy guarantee." in report
    assert '"type":"log"' in report
    assert "calculated from the first layer" in report


def test_an_officer_is_reported_what_was_found(leaky: RunFolder, told: dict[str, Any]) -> None:
    said = attacks(Facts.of(leaky))
    assert "an update on 1 training row, calculated from the first layer: 100 % recognised" in said
    assert "Loss threshold: AUC 0.7" in said
    assert f"epsilon is at least {told['canary']['epsilon_at_least']:.3f}" in said


def test_the_command_prints_the_numbers(leaky: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["leakage", str(leaky.path), "--attacks", "membership", "--clients", "site-0,site-2", "-q"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    default = inspect.signature(leakage).parameters["attacks"].default
    assert tuple(default.split(",")) == ATTACKS
    assert "Loss threshold" in printed
    assert "site-2" in printed
    assert "site-1" not in printed
    assert "needs 1,000 held out" in printed


def test_a_canary_population_trains_on_the_same_rows_and_the_canaries(tmp_path: Path) -> None:
    config = scenario(tmp_path)
    base = datasets.load_population(config)
    canary = base.shard(0).take(np.array([5, 6]))
    enlarged = Enlarged(base, config.data, config.seed, {1: canary}, [canary, None])
    assert (len(enlarged), enlarged.rows(1), enlarged.rows(4), enlarged.name(4)) == (6, 62, 2, "canary-0")
    before = ClientRuntime(config, base).raw
    after = ClientRuntime(config, enlarged).raw
    for client in range(4):
        for name in ("train", "validation", "test"):
            old, new = before(client)[name], after(client)[name]
            more = 2 if (client, name) == (1, "train") else 0
            assert new.rows == old.rows + more
            assert np.array_equal(new.labels[: old.rows], old.labels)
    assert np.array_equal(after(1)["train"].labels[-2:], canary.labels)
    assert [after(4)[name].rows for name in ("train", "validation", "test")] == [2, 0, 0]
    with pytest.raises(EmptyClientError, match="canary-1 is left out by its coin"):
        after(5)


def changed(leaky: RunFolder, folder: Path, old: str, new: str) -> RunFolder:
    copy = Path(shutil.copytree(leaky.path, folder / "changed"))
    text = (copy / "config.toml").read_text(encoding="utf-8")
    assert old in text
    (copy / "config.toml").write_text(text.replace(old, new), encoding="utf-8")
    return RunFolder.open(copy)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rows = 60", "rows = 70", "site-0 had 36 training and 24 test rows, and now has 42 and 28"),
        ("seed = 3", "seed = 4", "the model's loss on the test rows of site-0"),
    ],
)
def test_changed_data_are_refused(leaky: RunFolder, tmp_path: Path, old: str, new: str, words: str) -> None:
    run = changed(leaky, tmp_path, old, new)
    with pytest.raises(RunError, match=words):
        measure_leakage(run, ["membership"])


def test_what_cannot_be_attacked_is_refused(leaky: RunFolder, tmp_path: Path) -> None:
    pilot = Path(shutil.copytree(leaky.path, tmp_path / "pilot"))
    (pilot / "clients.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RunError, match="is a pilot: attacks need its rows"):
        measure_leakage(RunFolder.open(pilot))
    unfinished = RunFolder.create(scenario(tmp_path))
    unfinished.close()
    with pytest.raises(RunError, match="is killed: only a finished run"):
        measure_leakage(unfinished)
    with pytest.raises(RunError, match=r'unknown attack "membreship".* Did you mean "membership"'):
        measure_leakage(leaky, ["membreship"])
    with pytest.raises(RunError, match='no client "site-9", did you mean'):
        measure_leakage(leaky, clients=["site-9"])


def test_a_regression_has_no_confidence_to_compare(tmp_path: Path) -> None:
    """The loss threshold works on squared errors; LiRA and canaries need classes, and say so."""
    given = (f"output.directory={json.dumps(str(tmp_path))}", "training.rounds=2", "partition.clients=2")
    config = load_scenario("linear", given)
    found = measure_leakage(RunFolder.open(run_scenario(config)))["attacks"]
    assert list(found) == list(ATTACKS)
    assert 0.3 < auc(found["membership"]) < 0.7
    assert "regression" in found["lira"]["skipped"]
    assert "regression" in found["canary"]["skipped"]
    assert found["inversion"]["sizes"][0]["attack"]["error"] < 1e-3
