"""What is said of an audit: numbers that cannot be had, and how a bound stands to the promise."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.simulations.report.leakage import bound, guarantee, inversion_rows, leakage_section, share, skipped


def content(epsilon: float | None, least: float, most: float = 4.0) -> dict[str, Any]:
    canary = {
        "unit": "row",
        "canaries": 641,
        "guesses": 80,
        "correct": 59,
        "epsilon_at_least": least,
        "most": most,
        "delta": 1e-5,
        "confidence": 0.95,
    }
    promised = {"unit": "none" if epsilon is None else "record", "epsilon": epsilon, "delta": 1e-5}
    return {"promised": promised, "attacks": {"canary": canary}}


def test_without_an_audit_there_is_no_section() -> None:
    assert leakage_section({}) is None


@pytest.mark.parametrize(
    ("promised", "least", "most", "last"),
    [
        (None, 0.4, 4.0, "would have shown 4.000."),
        (1.0, 0.4, 4.0, "would have shown 4.000."),
        (1.0, 1.2, 4.0, "so the guarantee is broken."),
        (8.0, 0.4, 4.0, "too few canaries to refute the guarantee."),
    ],
)
def test_a_bound_is_held_against_the_guarantee(
    promised: float | None, least: float, most: float, last: str
) -> None:
    sentences = bound(content(promised, least, most))
    assert sentences[0].startswith(f"With 95 % confidence epsilon is at least {least:.3f} for a row")
    assert sentences[-1].endswith(last)


def test_the_guarantee_names_whom_it_is_about() -> None:
    assert guarantee(content(None, 0)) == "The run has no privacy guarantee."
    assert guarantee(content(3.0, 0)) == "The run guarantees epsilon 3.000 at delta 1e-05 for each row."


def test_a_rate_that_cannot_be_seen_is_reported_as_what_it_needs() -> None:
    assert share({"fpr": 0.001, "needs": 1000, "tpr": None}) == "needs 1,000 held out"
    found = {"value": 0.0014, "low": 0.0006, "high": 0.0027}
    assert share({"fpr": 0.001, "needs": 1000, "tpr": found}) == "0.14 % [0.06, 0.27]"


def test_attacks_that_were_not_led_say_why() -> None:
    attacks = {"lira": {"skipped": "a"}, "canary": {"skipped": "b"}, "inversion": {"skipped": "c"}}
    told = {"promised": content(None, 0)["promised"], "attacks": attacks}
    assert skipped(told) == ["LiRA: a.", "Canaries: b.", "Gradient inversion: c."]
    assert bound(told) == []
    section = leakage_section(told)
    assert section is not None
    assert section["roc"] is None


def test_texts_are_reported_by_their_tokens() -> None:
    sizes = [
        {"batch": 1, "method": "tokens whose embedding changed", "tokens": {"attack": 0.978, "guess": 0.179}}
    ]
    rows = inversion_rows({"attacks": {"inversion": {"sizes": sizes}}})
    assert [row[2:6] for row in rows] == [
        ("attack", "–", "–", "tokens, F1 0.978"),
        ("guess", "–", "–", "tokens, F1 0.179"),
    ]
