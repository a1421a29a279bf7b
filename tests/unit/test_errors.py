"""Errors: messages with hints, numbered problems, nearest names."""

from __future__ import annotations

from shoal.common import errors
from shoal.common.errors import ConfigError, DataError, nearest, unknown_name


def test_a_hint_stands_below_the_message() -> None:
    error = DataError("no rows", hint="add some")
    assert str(error) == "no rows\n  → add some"
    assert (error.message, error.hint) == ("no rows", "add some")
    assert str(DataError("no rows")) == "no rows"


def test_config_error_counts_and_lists_its_problems() -> None:
    assert str(ConfigError("a")) == "1 problem:\n  - a"
    error = ConfigError(["a", "b"], source="x.toml", hint="look")
    assert str(error) == "2 problems in x.toml:\n  - a\n  - b\n  → look"
    assert error.problems == ["a", "b"]


def test_nearest_ignores_case_and_gives_up_on_the_unlike() -> None:
    assert nearest("fedavg", ["FedAvg", "FedAdam"]) == "FedAvg"
    assert nearest("zzz", ["FedAvg"]) is None
    assert nearest("x", []) is None


def test_unknown_name_lists_all_known() -> None:
    assert unknown_name("model", "mpl", ["mlp", "cnn"]) == (
        'unknown model "mpl". Did you mean "mlp"? Known: cnn, mlp'
    )
    assert unknown_name("model", "zzz", ["mlp"]) == 'unknown model "zzz". Known: mlp'


def test_every_error_reports_how_to_go_on() -> None:
    for item in vars(errors).values():
        if isinstance(item, type) and issubclass(item, errors.ShoalError):
            assert item.help.endswith(".")
            # Its own help, not that of its parent, which is about something wider.
            assert "help" in vars(item)
