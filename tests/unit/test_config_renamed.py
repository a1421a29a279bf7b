"""Renamed keys of scenario files: the old name still works, and a warning names the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.common.config.file import load_scenario
from shoal.common.config.renamed import RENAMED
from shoal.common.errors import ConfigError

SCENARIO = """\
name = "small"
data = { source = "digits" }
model = { name = "mlp" }
[resources]
workers = 2
path = "stacked"
[attack.args]
fellows = 3
"""


@pytest.fixture
def old_keys(tmp_path: Path) -> Path:
    path = tmp_path / "old.toml"
    path.write_text(SCENARIO, encoding="utf-8")
    return path


def test_old_keys_in_a_file_are_read_with_a_warning_each(
    old_keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenario = load_scenario(old_keys)
    assert scenario.resources.execution_mode == "stacked"
    assert scenario.attack.args == {"colluders": 3}
    assert [record.getMessage().removeprefix(str(old_keys)) for record in caplog.records] == [
        ", line 6: resources.path has been renamed to resources.execution_mode; the old name still works "
        "in this version only: use the new one",
        ", line 8: attack.args.fellows has been renamed to attack.args.colluders; the old name still works "
        "in this version only: use the new one",
    ]


def test_new_keys_give_no_warning(old_keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    old_keys.write_text(SCENARIO.replace("path", "execution_mode").replace("fellows", "colluders"))
    assert load_scenario(old_keys).resources.execution_mode == "stacked"
    assert not caplog.records


@pytest.mark.parametrize("override", ["resources.path=sequential", 'resources={path="sequential"}'])
def test_an_old_key_in_an_override_wins_over_the_file(
    old_keys: Path, override: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_scenario(old_keys, [override]).resources.execution_mode == "sequential"
    assert f"--set {override}: resources.path has been renamed" in caplog.text


def test_a_wrong_value_under_an_old_key_names_its_line_and_the_new_key(old_keys: Path) -> None:
    old_keys.write_text(SCENARIO.replace('"stacked"', '"piled"'))
    with pytest.raises(ConfigError, match=r"line 6, resources\.execution_mode: unknown execution_mode"):
        load_scenario(old_keys)


def test_old_and_new_key_together_are_a_problem(old_keys: Path) -> None:
    old_keys.write_text(SCENARIO.replace("workers = 2", 'execution_mode = "auto"'))
    with pytest.raises(ConfigError, match=r"line 6, resources\.path: this is the old name .* remove the old"):
        load_scenario(old_keys)


def test_every_rename_stays_within_its_table() -> None:
    assert all(old.rpartition(".")[0] == new.rpartition(".")[0] for old, new in RENAMED.items())
