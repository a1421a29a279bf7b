"""Closed requests: what is well formed arrives as it was sent, and everything else is refused by name."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.common.errors import MessageError
from shoal.common.messages.names import ARRAYS, CONFIG
from shoal.common.messages.requests import EvaluateRequest, TrainRequest
from shoal.common.messages.schema import FieldSpec, is_optional, parse, specs, to_config, to_content
from shoal.common.messages.table import MESSAGES
from shoal.common.weights import record_to_weights, weights_to_record
from shoal.common.wire.codec import pack, unpack

KINDS = {name: one.request for name, one in MESSAGES.items()}
FIELDS = [(name, attribute) for name, kind in KINDS.items() for attribute in specs(kind)]
VALUES = [(name, attribute) for name, attribute in FIELDS if specs(KINDS[name])[attribute].kind != "arrays"]
SECRET = "hunter2"


def numbers(spec: FieldSpec, kind: str) -> st.SearchStrategy[Any]:
    whole = st.integers(math.ceil(max(spec.low, -(2**62))), math.floor(min(spec.high, 2**62)))
    if kind == "whole":
        return whole
    bounds = {"min_value": max(spec.low, -1e300), "max_value": min(spec.high, 1e300)}
    return whole | st.floats(**bounds)  # type: ignore[arg-type]


def fitting(spec: FieldSpec) -> st.SearchStrategy[Any]:
    """Return values that fit a field, as its `FieldSpec` says."""
    size = {"min_size": spec.size or 0, "max_size": 4 if spec.size is None else spec.size}
    match spec.kind:
        case "arrays":
            floats = st.lists(st.floats(-1, 1, width=32), max_size=3)
            return st.lists(floats.map(lambda values: np.array(values, np.float32)), max_size=2).map(
                weights_to_record
            )
        case "text":
            return st.sampled_from(spec.choices) if spec.choices else st.text(max_size=10)
        case "bytes":
            return st.binary(**size)
        case "flag":
            return st.booleans()
        case "byte strings":
            return st.lists(st.binary(max_size=5), **size).map(tuple)
        case "wholes":
            return st.lists(numbers(spec, "whole"), **size).map(tuple)
        case "numbers":  # Flower's lists are of one type
            return st.lists(numbers(spec, "number").map(float), **size).map(tuple)
        case _:
            return numbers(spec, spec.kind)


@st.composite
def requests(draw: st.DrawFn, name: str) -> Any:
    kind = KINDS[name]
    values = {}
    for attribute, spec in specs(kind).items():
        if not is_optional(kind, attribute) or draw(st.booleans()):
            values[attribute] = draw(fitting(spec))
    return kind(**values)


def same(a: object, b: object) -> bool:
    if isinstance(a, ArrayRecord) and isinstance(b, ArrayRecord):
        one, other = record_to_weights(a), record_to_weights(b)
        return len(one) == len(other) and all(map(np.array_equal, one, other))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_request_arrives_as_it_was_sent(name: str, data: st.DataObject) -> None:
    """Read from the bytes that gRPC sends; and written again it is the same, as masks need it."""
    request = data.draw(requests(name))
    content = to_content(request)
    packed = pack(content)
    back = parse(KINDS[name], unpack(b"".join(packed.parts), packed.content_bytes))
    for one in fields(request):
        assert same(getattr(back, one.name), getattr(request, one.name)), one.name
    again = to_content(back)
    assert list(again) == list(content)
    assert [list(record) for record in again.values()] == [list(record) for record in content.values()]


def example(name: str) -> dict[str, Any]:
    """Return values of all fields of a request."""
    plain = {
        "arrays": weights_to_record([np.zeros(2, np.float32)]),
        "text": "text",
        "flag": True,
        "whole": 3,
        "number": 0.5,
        "wholes": (1, 2),
        "numbers": (0.5, 2.0),
        "byte strings": (b"a", b"b"),
    }

    def value(spec: FieldSpec) -> Any:
        if spec.choices:
            return spec.choices[0]
        return bytes(spec.size or 4) if spec.kind == "bytes" else plain[spec.kind]

    return {attribute: value(spec) for attribute, spec in specs(KINDS[name]).items()}


def content_of(name: str) -> RecordDict:
    return to_content(KINDS[name](**example(name)))


def refused(name: str, content: RecordDict, *mentions: str) -> None:
    with pytest.raises(MessageError) as caught:
        parse(KINDS[name], content)
    text = str(caught.value)
    assert all(f'"{word}"' in text for word in mentions), text
    assert SECRET not in text


@pytest.mark.parametrize("name", KINDS)
def test_an_unknown_record_is_refused(name: str) -> None:
    for record in (ConfigRecord({"note": SECRET}), ArrayRecord([np.zeros(1)]), MetricRecord({"note": 1})):
        refused(name, RecordDict({**content_of(name), "more": record}), "more")


@pytest.mark.parametrize(("name", "attribute"), VALUES)
def test_an_unknown_key_is_refused(name: str, attribute: str) -> None:
    content, record = content_of(name), specs(KINDS[name])[attribute].record
    content[record] = ConfigRecord({**content.config_records[record], "note": SECRET})
    refused(name, content, "note", record)


@pytest.mark.parametrize(("name", "attribute"), FIELDS)
def test_what_is_missing_is_named_unless_it_may_be(name: str, attribute: str) -> None:
    spec, content = specs(KINDS[name])[attribute], content_of(name)
    if spec.kind == "arrays":
        del content[spec.record]
    else:
        del content[spec.record][spec.key]
    if is_optional(KINDS[name], attribute):
        assert getattr(parse(KINDS[name], content), attribute) is None
    else:
        refused(name, content, spec.key or spec.record)


def other_types(spec: FieldSpec) -> list[Any]:
    """Return values of every type that a field is not of; a flag is no number, and a number no flag."""
    values: dict[str, Any] = {
        "text": SECRET,
        "bytes": SECRET.encode(),
        "flag": True,
        "whole": 1,
        "number": 0.5,
        "wholes": [1, 1],
        "numbers": [0.5, 0.5],
        "flags": [True, False],
        "texts": [SECRET, SECRET],
        "byte strings": [SECRET.encode()],
    }
    fits = {spec.kind} | {"number": {"whole"}, "numbers": {"wholes"}}.get(spec.kind, set())
    return [value for kind, value in values.items() if kind not in fits]


@pytest.mark.parametrize(("name", "attribute"), VALUES)
def test_a_value_of_another_type_is_refused(name: str, attribute: str) -> None:
    spec = specs(KINDS[name])[attribute]
    for value in other_types(spec):
        content = content_of(name)
        content[spec.record] = ConfigRecord({**content.config_records[spec.record], spec.key: value})
        refused(name, content, spec.key, spec.record)


def beyond(spec: FieldSpec) -> list[Any]:
    """Return numbers, texts and bytes that do not fit a field, though their type does."""
    found: list[Any] = []
    if spec.kind in ("number", "numbers"):
        found = [math.nan, math.inf, -math.inf]
    if spec.kind in ("whole", "wholes", "number", "numbers"):
        step = 1 if spec.kind.startswith("whole") else 0.5
        if math.isfinite(spec.low):
            found.append(type(step)(spec.low) - step)
        if math.isfinite(spec.high):
            found.append(type(step)(spec.high) * 2)
    if spec.kind.endswith("s") and spec.kind != "bytes":
        found = [[value] for value in found]
    if spec.choices:
        found = [SECRET, ""]
    if spec.size is not None:
        found = [bytes(spec.size - 1), bytes(spec.size + 1), b""]
    return found


@pytest.mark.parametrize(("name", "attribute"), VALUES)
def test_a_value_out_of_range_is_refused(name: str, attribute: str) -> None:
    spec = specs(KINDS[name])[attribute]
    for value in beyond(spec):
        content = content_of(name)
        content[spec.record] = ConfigRecord({**content.config_records[spec.record], spec.key: value})
        refused(name, content, spec.key, spec.record)


@pytest.mark.parametrize(("name", "attribute"), [one for one in FIELDS if one not in VALUES], ids="-".join)
def test_arrays_are_arrays_and_finite(name: str, attribute: str) -> None:
    record = specs(KINDS[name])[attribute].record
    for bad in (
        ConfigRecord({"note": SECRET}),
        MetricRecord({"note": 1}),
        weights_to_record([np.zeros(2), np.array([0.0, math.nan])]),
        weights_to_record([np.array([[-math.inf]], np.float32)]),
    ):
        content = content_of(name)
        content[record] = bad
        refused(name, content, record)


@pytest.mark.parametrize("name", KINDS)
def test_a_record_of_values_is_one(name: str) -> None:
    for record in {spec.record for spec in specs(KINDS[name]).values() if spec.key}:
        for bad in (ArrayRecord([np.zeros(1)]), MetricRecord({"note": 1})):
            refused(name, RecordDict({**content_of(name), record: bad}), record)


def test_every_number_is_bounded_or_says_that_only_a_finite_one_fits() -> None:
    for name, attribute in VALUES:
        spec = specs(KINDS[name])[attribute]
        if spec.kind in ("whole", "wholes", "number", "numbers"):
            assert spec.range(), f"{name}: {attribute}"


def test_an_optional_field_is_absent_as_nothing_else() -> None:
    """A default other than `None` would be left out by one version and written by the next."""
    for kind in KINDS.values():
        for one in fields(kind):
            assert one.default in (None, MISSING)


def test_fields_of_one_request_stand_in_places_of_their_own() -> None:
    for kind in KINDS.values():
        places = [(spec.record, spec.key) for spec in specs(kind).values()]
        assert len(set(places)) == len(places)


def test_strategies_are_given_the_config_record() -> None:
    request = EvaluateRequest(
        weights=ArrayRecord([np.zeros(1)]),
        preprocessing="{}",
        round_number=3,
        execution_mode="stacked",
        reduce=True,
    )
    expected = {"preprocessing": "{}", "server-round": 3, "execution-mode": "stacked", "reduce": True}
    assert dict(to_config(request)) == expected
    assert dict(to_content(request).config_records[CONFIG]) == expected
    assert list(to_content(request)) == [ARRAYS, CONFIG]


def test_a_number_out_of_range_is_told_with_the_range() -> None:
    content = content_of("train")
    content[CONFIG]["learning-rate"] = -0.5
    with pytest.raises(MessageError, match=r"-0\.5 is out of range: 0 to 1e\+09"):
        parse(TrainRequest, content)
    content[CONFIG]["learning-rate"] = 0.5
    content[CONFIG]["execution-mode"] = "sideways"
    with pytest.raises(MessageError, match="expected one of stacked, sequential"):
        parse(TrainRequest, content)
