from __future__ import annotations

import math

import pytest

from shoal.common.events import Interval, Model, SiteRow
from shoal.simulations.comparison import differences
from shoal.simulations.convergence import Unconverged
from shoal.simulations.report.verdict import Tone, judge

NAN = math.nan


def site(name: str, half_width: float = 0.02, metric: str = "auc", **values: float) -> SiteRow:
    """Return a site with an interval of +- half_width about each model's value."""
    tests: dict[Model, dict[str, Interval]] = {
        model: {metric: Interval(value, value - half_width, value + half_width)}  # type: ignore[misc]
        for model, value in values.items()
    }
    return SiteRow(sum(map(ord, name)), name, 100, 30, 10, tests)


def text(rows: list[SiteRow], metric: str = "auc") -> str:
    return " ".join(judge(rows, metric).sentences)


def test_helped_at_most_sites() -> None:
    # AUC 0.90 0.92 0.80 federated (mean 0.8733) against 0.80 0.90 0.81 alone (mean 0.8367). Intervals are
    # +-0.02: at A they are [0.88, 0.92] and [0.78, 0.82], apart; at B and C they overlap.
    rows = [
        site("A", local=0.80, federated=0.90, centralised=0.905),
        site("B", local=0.90, federated=0.92, centralised=0.95),
        site("C", local=0.81, federated=0.80, centralised=0.79),
    ]
    verdict = judge(rows, "auc")
    assert verdict.headline == "Federated learning helped, clearly at 1 of 3 sites"
    assert verdict.tone == "good"
    said = " ".join(verdict.sentences)
    assert "beat local-only training at 2 of 3 sites (mean AUC 0.873 against 0.837)" in said
    assert "At C training alone was better (0.810 alone against 0.800)" in said
    assert "Of 3 differences, 1 exceeds the 95 % intervals: 1 in favour of federated learning (A)" in said
    assert "(A); the others may be chance." in said
    # Within 0.01 of pooling: A (-0.005) and C (+0.01); B is 0.03 below. Mean pooled 0.8817.
    assert "reaches mean AUC 0.882 against 0.873" in said
    assert "at 2 of 3 sites" in said
    assert "The worst site is C with AUC 0.800 [0.780, 0.820] on 30 test rows; alone it reaches 0.810" in said


@pytest.mark.parametrize(
    ("gains", "half_width", "headline", "tone"),
    [
        ((0.1, 0.1), 0.01, "Federated learning helped at all 2 sites", "good"),
        ((0.1,), 0.01, "Federated learning helped at the one site", "good"),
        ((0.1, 0.1), 0.2, "No clear difference between federated learning and training alone", "mixed"),
        ((0.0, 0.0002), 0.01, "Federated learning made no difference at any site", "mixed"),
        (
            (-0.1, -0.1, 0.0),
            0.01,
            "Federated learning did not help: training alone was better, clearly at 2 of 3 sites",
            "bad",
        ),
        (
            (0.1, -0.1),
            0.01,
            "Mixed results: federated learning clearly helped at 1 of 2 sites and clearly hurt at 1",
            "mixed",
        ),
        # +0.01 is within the intervals of +-0.01; one site loses more than both gain together.
        (
            (0.01, 0.01, -0.3),
            0.01,
            "Federated learning did not help: training alone was better, clearly at 1 of 3 sites",
            "bad",
        ),
        # The mean is 0.01 better, although the only clear difference is against it.
        (
            (0.1, 0.1, -0.17),
            0.08,
            "Mixed results: federated learning clearly helped at 0 of 3 sites and clearly hurt at 1",
            "mixed",
        ),
    ],
)
def test_headline(gains: tuple[float, ...], half_width: float, headline: str, tone: Tone) -> None:
    rows = [site(f"S{i}", half_width, local=0.6, federated=0.6 + gain) for i, gain in enumerate(gains)]
    verdict = judge(rows, "auc")
    assert (verdict.headline, verdict.tone) == (headline, tone)


def test_lower_is_better_for_a_loss() -> None:
    rows = [site("A", 0.01, "mae", local=2.0, federated=1.0, centralised=0.99)]
    assert judge(rows, "mae").headline == "Federated learning helped at the one site"
    assert differences(rows, "local", "mae")[0].gain == pytest.approx(1.0)
    # 1.0 against 0.99: 1 % worse, within the 5 % that count as near for an unbounded metric.
    assert "is within 5 % of it, or better, at 1 of 1 site" in text(rows, "mae")


def test_a_harm_beyond_the_intervals_is_reported() -> None:
    rows = [site("A", 0.01, local=0.9, federated=0.6), site("B", 0.01, local=0.9, federated=0.7)]
    said = text(rows)
    assert "2 against it (A, B)" in said
    assert "most at A (0.900 alone against 0.600)" in said


def test_without_intervals_chance_is_not_judged() -> None:
    rows = [site("A", NAN, local=0.6, federated=0.9)]
    assert differences(rows, "local", "auc")[0].clear is None
    assert "No intervals were computed" in text(rows)
    verdict = judge(rows, "auc")
    assert verdict.headline == "Federated learning did better, but whether by chance was not measured"
    assert verdict.tone == "mixed"


def test_sites_without_a_value_are_named_and_left_out() -> None:
    rows = [site("A", local=0.6, federated=0.7), site("B", local=NAN, federated=NAN)]
    verdict = judge(rows, "auc")
    assert verdict.headline.startswith("Federated learning helped at the one site")
    assert "1 site (B) is left out" in text(rows)


def test_a_site_of_too_few_rows_has_no_numbers() -> None:
    rows = [site("A", local=0.6, federated=0.7), SiteRow(9, "B", 4, 1, -1, {})]
    assert "1 site (B) is left out" in text(rows)


def test_without_comparison_nothing_is_claimed() -> None:
    verdict = judge([site("A", federated=0.7), site("B", federated=0.9)], "auc")
    assert verdict.headline == "Whether federated learning helped was not measured"
    assert verdict.tone == "open"
    assert "mean AUC 0.800 over 2 sites" in " ".join(verdict.sentences)


def test_without_a_test_there_is_no_answer() -> None:
    assert judge([], "auc").headline.startswith("No answer yet")
    assert judge([site("A", federated=0.7)], None).tone == "open"


def test_long_lists_of_sites_are_cut() -> None:
    rows = [site(f"S{i}", 0.01, local=0.6, federated=0.9) for i in range(8)]
    assert "(S0, S1, S2 and 5 more)" in text(rows)


def test_many_small_gains_are_found_by_the_paired_test() -> None:
    # Each of 6 gains is within the intervals of +-0.02; all 6 have one sign: p = 2 / 2**6 = 0.031.
    gains = (0.010, 0.011, 0.012, 0.013, 0.014, 0.015)
    verdict = judge([site(f"S{i}", local=0.6, federated=0.6 + gain) for i, gain in enumerate(gains)], "auc")
    assert verdict.headline == "Federated learning helped on average over 6 sites, clearly at none"
    assert verdict.tone == "good"
    assert "finds a difference: p = 0.031" in " ".join(verdict.sentences)


def test_opposite_small_differences_of_similar_means_have_one_tone() -> None:
    # Two gains and one loss, or the reverse: signs alone would call one a success and the other a failure.
    tones = {
        judge([site(f"S{i}", local=0.6, federated=0.6 + gain) for i, gain in enumerate(gains)], "auc").tone
        for gains in ((0.002, 0.002, -0.003), (-0.002, -0.002, 0.003))
    }
    assert tones == {"mixed"}


def test_no_conclusion_before_training_has_converged() -> None:
    rows = [site("A", 0.01, local=0.6, federated=0.9)]
    verdict = judge(rows, "auc", Unconverged(10, 10, "auc", 0.016, 3))
    assert verdict.headline == "No conclusion yet: training had not converged after 10 rounds"
    assert verdict.tone == "open"
    assert verdict.sentences[0] == (
        "Validation AUC still changed by +0.016 over the last 3 rounds, and the best round is the last."
    )
    assert "--set training.rounds=30" in verdict.sentences[1]
    assert "1 in favour of federated learning (A)" in " ".join(verdict.sentences)  # the numbers stay
