"""Laws of scenario files: writing and reading gives the same scenario; keys are found on their lines."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, get_args

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.common.config import (
    DataConfig,
    EarlyStoppingConfig,
    ModelConfig,
    PartitionConfig,
    ResourcesConfig,
    Scenario,
    TrainingConfig,
)
from shoal.common.config.file import dump_toml, load_scenario
from shoal.common.config.places import key_lines

text = st.text(max_size=12)
values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(text, values, max_size=3)
metrics = st.lists(st.sampled_from(["accuracy", "auc", "f1", "loss"]), max_size=3).map(tuple)


def one_of_field(section: Any, field: str) -> st.SearchStrategy[Any]:
    return st.sampled_from(get_args(section.model_fields[field].annotation))


scenarios = st.builds(
    Scenario,
    name=st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True),
    description=st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12),  # one line
    seed=st.integers(0, 2**31 - 1),
    data=st.builds(
        DataConfig,
        source=text,
        path=st.none() | text.map(lambda name: str(Path(f"/{name}"))),  # as reading writes it: no "/x/"
        label=st.none() | text,
        include=st.lists(text, max_size=3).map(tuple),
        task=one_of_field(DataConfig, "task"),
        test_fraction=st.floats(0.01, 0.5),
        args=arguments,
    ),
    partition=st.builds(
        PartitionConfig,
        scheme=one_of_field(PartitionConfig, "scheme"),
        clients=st.integers(1, 10**9),
        max_rows=st.integers(1, 10**9),
        alpha=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    ),
    model=st.builds(ModelConfig, name=text, args=arguments),
    training=st.builds(
        TrainingConfig,
        local_steps=st.none() | st.integers(1, 100),
        optimizer=one_of_field(TrainingConfig, "optimizer"),
        metrics=metrics,
        optimizer_args=arguments,
        early_stopping=st.builds(EarlyStoppingConfig, patience=st.integers(0, 9)),
    ),
    resources=st.builds(ResourcesConfig, backend=st.sampled_from(["ray", "serial"])),
)


@settings(max_examples=60, deadline=None)
@given(scenarios)
def test_dump_and_load_round_trip(scenario: Scenario) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.toml"
        # As run folders do; newline="" keeps a carriage return in a text value as it is.
        path.write_text(dump_toml(scenario), encoding="utf-8", newline="")
        again = load_scenario(path)
    assert again == scenario
    assert dump_toml(again) == dump_toml(scenario)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(text, st.dictionaries(text, values, max_size=3), max_size=4))
def test_every_key_of_a_written_text_has_a_line_that_holds_it(table: dict[str, dict[str, Any]]) -> None:
    written = tomli_w.dumps(table)
    lines = key_lines(written)
    numbered = written.split("\n")
    for outer, inner in table.items():
        for key in inner:
            line = numbered[lines[outer, key] - 1]
            quoted = tomli_w.dumps({key: 0}).removesuffix(" = 0\n")
            assert quoted in line
