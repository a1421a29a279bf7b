"""The command line: quick help, exit codes, overrides from options, what each command hands on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoal import cli
from shoal.common import errors
from shoal.common.config.file import BUILTIN_SCENARIOS
from shoal.simulations.cli import app, running

HEAVY = (
    "tensorflow",
    "keras",
    "ray",
    "flwr",
    "jieba",
    "sklearn",
    "datasets",
    "pyarrow",
    "pandas",
    "numpy",
)


def shoal(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    assert (caught.value.code or 0) == code


def imported_by(statement: str) -> set[str]:
    """Top-level packages in `sys.modules` after a statement in a fresh Python."""
    program = (
        f"import sys\ntry:\n    {statement}\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_help_imports_nothing_heavy() -> None:
    started = time.perf_counter()
    imported = imported_by("from shoal.cli import main; main(['--help'])")
    print(f"shoal --help: {time.perf_counter() - started:.2f} s")  # told, not asserted: machines differ
    assert "typer" in imported
    assert not imported & set(HEAVY)


def test_reading_a_broken_scenario_imports_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("name = 3\n", encoding="utf-8")
    imported = imported_by(f"from shoal.cli import main; main(['validate', {str(path)!r}])")
    assert "pydantic" in imported
    assert not imported & set(HEAVY)


def test_schema_validation_imports_nothing_heavy() -> None:
    imported = imported_by("from shoal.cli import main; main(['validate', 'digits', '--schema-only'])")
    assert "shoal" in imported
    assert not imported & (set(HEAVY) - {"numpy"})


def test_help_of_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for command in app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        shoal(name, "--help")
        assert f"shoal {name}" in capsys.readouterr().out.split("\n", 3)[3]


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    shoal(code=2)
    assert "medical-thyroid" in "".join(capsys.readouterr())


def test_unknown_option_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    shoal("run", "linear", "--nonsense", code=2)
    shoal("run", "linear", "--rounds", "0", code=2)
    shoal("run", "linear", "--backend", "dask", code=2)
    shoal("data", code=2)
    assert "SCENARIO" in capsys.readouterr().err


def test_a_broken_scenario_lists_all_problems_and_exits_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "bad"\nsead = 1\n[data]\n[training]\nrounds = "ten"\n', encoding="utf-8")
    for command in ("validate", "run", "data"):
        shoal(command, str(path), code=errors.ConfigError.exit_code)
        told = capsys.readouterr().err
        assert "4 problems" in told
        for part in (
            'line 2, sead: unknown key; did you mean "seed"?',
            "line 3, data.source",
            "line 5, training.rounds",
            "[model]",
        ):
            assert part in told
        assert errors.ConfigError.help in told


def test_set_and_options_reach_the_scenario(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Each wrong, so that the message shows where it came from.
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\n[data]\nsource = "csv"\n[model]\nname = "mlp"\n', encoding="utf-8")
    shoal("validate", str(path), "--set", "training.rounds=0", "--set", "seed=-1", code=3)
    told = capsys.readouterr().err
    assert "--set training.rounds=0, training.rounds: must be at least 1" in told
    assert "--set seed=-1, seed: must be at least 0" in told


def test_every_error_class_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from shoal.simulations.cli.reference_pages import error_classes

    for error in error_classes():

        def fail(source: str, overrides: object, error: type[errors.ShoalError] = error) -> None:
            raise error("it went wrong", hint="mend it")

        monkeypatch.setattr(running, "_load", fail)
        shoal("validate", "x", code=error.exit_code)
        told = capsys.readouterr().err
        assert error.__name__ in told
        assert "it went wrong" in told
        assert "→ mend it" in told
        assert error.help in told


def test_unexpected_errors_show_a_traceback_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(source: str, overrides: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(running, "_load", fail)
    shoal("validate", "x", code=1)
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "ZeroDivisionError: a fault" in told
    assert "bug in shoal" in told


def test_ctrl_c_is_exit_code_130() -> None:
    program = (
        "import os, signal, sys\nfrom shoal import cli\nfrom shoal.simulations.cli import running\n"
        # A shell starts what runs in the background with SIGINT ignored, and Python leaves that so.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def load(*_):\n    os.kill(os.getpid(), signal.SIGINT)\n    import time; time.sleep(30)\n"
        "running._load = load\ncli.main(['validate', 'x'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr


def test_environment_is_set_unless_the_user_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    shoal("version")
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    project = Path(__file__).parents[2] / "pyproject.toml"
    shoal("version")
    assert capsys.readouterr().out == f"shoal {tomllib.loads(project.read_text())['project']['version']}\n"


def test_scenarios_lists_each_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    shoal("scenarios")
    lines = capsys.readouterr().out.splitlines()
    names = sorted(path.stem for path in BUILTIN_SCENARIOS.glob("*.toml"))
    assert [line.split()[0] for line in lines] == names
    assert "medical-thyroid" in names
    assert all(len(line.split()) > 2 for line in lines)


def test_unknown_run_names_where_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["show", "nope"],
        ["report", "nope"],
        ["compare", "nope", "nope"],
        ["predict", "nope", "x.csv"],
    ):
        shoal(*command, "--directory", str(tmp_path), code=errors.RunError.exit_code)
        assert 'no run "nope"' in capsys.readouterr().err


def test_shoal_is_installed_as_a_command() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("shoal"), "version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("shoal ")


def test_a_file_name_that_is_too_long_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("validate", "show"):
        shoal(command, "x" * 300 + ".toml", code=errors.StorageError.exit_code)
        told = capsys.readouterr().err
        assert f"{'x' * 120}… cannot be used: File name too long" in told
        assert "x" * 121 not in told


def test_the_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    shoal("--version")
    assert capsys.readouterr().out.startswith("shoal ")


def test_without_a_name_the_latest_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shoal("show", "--directory", str(tmp_path), code=errors.RunError.exit_code)
    assert "contains no runs" in capsys.readouterr().err
