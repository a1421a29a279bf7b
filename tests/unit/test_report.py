from __future__ import annotations

import base64
import dataclasses
import gzip
import importlib.util
import json
import re
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from shoal.common.events import RoundRow, SiteRow
from shoal.simulations.report import figures_rounds, figures_sites, render, write_report
from shoal.simulations.report.plot import clean, label
from shoal.simulations.results import RunFolder

_SPEC = importlib.util.spec_from_file_location("example_run", Path(__file__).with_name("example_run.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
example: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)

CSS = Path(figures_rounds.__file__).with_name("report.css").read_text()
ATTACK = "</script><script>alert(1)</script>"


class Page(HTMLParser):
    """Collects what a browser would act on: elements with attributes, script texts, visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str, str]] = []
        self.text = ""
        self._raw: tuple[str, str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = (tag, dict(attrs).get("type") or "") if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:
        self._raw = None

    def handle_data(self, data: str) -> None:
        if self._raw is None:
            self.text += data
        elif self._raw[0] == "script":
            self.scripts.append((self._raw[1], data))

    @property
    def figures(self) -> list[dict[str, Any]]:
        return [json.loads(text) for kind, text in self.scripts if kind == "application/json"]


def make(directory: Path, *, sites: Any = None, compare: bool = True, summary: Any = None) -> RunFolder:
    run = RunFolder.create(example.scenario(directory))
    rows = example.make_sites(sites=sites)
    run.write_overview(example.overview(rows))
    weights = example.tell_rounds(run, rows, 6, failing="SVHC")
    run.on_sites(example.final_test(weights, rows, 18, compare=compare))
    run.finish("finished", summary or {})
    write_report(run)
    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    summary = {"closed_form": {"slope": {"learnt": 3.0012, "exact": 3.0}}}
    run = make(tmp_path_factory.mktemp("runs"), summary=summary)
    return Page((run.path / "report.html").read_text())


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert name not in attributes, (tag, attributes)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "url(" not in CSS
    assert "@import" not in CSS


def test_the_library_that_draws_is_inside_once_and_small(page: Page) -> None:
    (packed,) = [text for kind, text in page.scripts if kind == "application/gzip"]
    library = gzip.decompress(base64.b64decode(packed))
    digest = sha256(library).hexdigest()
    assert digest in (Path(__file__).parents[2] / "NOTICE").read_text()
    assert len(packed) < 700_000


def test_a_report_of_many_sites_is_small(tmp_path: Path) -> None:
    """What grows with the sites is a few tables and figures, all of them capped at 100 rows."""
    run = make(tmp_path, sites={f"site {number}": (30, 0.4) for number in range(150)})
    assert (run.path / "report.html").stat().st_size < 1_500_000


def test_the_answer_comes_first(page: Page) -> None:
    words = " ".join(page.text.split())
    assert words.index("Federat") < words.index("Each site") < words.index("Training over rounds")
    assert [tag for tag, _ in page.elements].count("h1") == 1
    for section in ("Over all sites", "Traffic", "Time", "The data", "Failures", "How the run was made"):
        assert section in words


def test_each_site_and_the_failure_are_reported(page: Page) -> None:
    assert all(name in page.text for name in example.SITES)
    assert "WorkerError: the worker process died twice" in page.text
    # 7 evaluations (rounds 0 to 6) and 6 trainings of 5 sites.
    assert "1 of 65 messages" in page.text


def test_the_closed_form_is_reported(page: Page) -> None:
    words = " ".join(page.text.split())
    assert "Learnt parameters and exact solution" in words
    assert "slope3.001230.0012" in words.replace(" ", "")


def test_figures_hold_numbers_or_null_and_known_colours(page: Page) -> None:
    assert len(page.figures) == 1 + 3 + 2 + 2 + 3  # sites, curves, traffic, time, data
    used = set(re.findall(r"var\((--[\w-]+)\)", json.dumps(page.figures)))
    assert used
    assert used <= set(re.findall(r"(--[\w-]+):", CSS))


def test_few_positives_are_not_reported(tmp_path: Path) -> None:
    # 12 rows of which few are positive: 3 test rows can hold no 5 positives.
    run = make(tmp_path, sites={"large": (400, 0.4), "tiny": (12, 0.3)})
    page = Page(render(run))
    assert "<5" in page.text
    cells = re.search(r'title="tiny".*?</tr>', render(run), re.S)
    assert cells is not None
    assert "&lt;5" in cells[0]


def test_names_cannot_break_out(tmp_path: Path) -> None:
    run = make(tmp_path, sites={ATTACK: (200, 0.4), "<b>bold</b>": (200, 0.5)})
    html = render(run)
    assert ATTACK not in html
    page = Page(html)
    assert ATTACK in page.text  # shown as text
    assert "alert(1)" not in {text for kind, text in page.scripts if kind != "application/json"}
    ticks = page.figures[0]["layout"]["yaxis"]["ticktext"]
    assert all("<" not in tick for tick in ticks)  # plotly reads markup in texts


def test_a_site_of_too_few_rows_is_shown_without_numbers(tmp_path: Path) -> None:
    run = RunFolder.create(example.scenario(tmp_path))
    rows = example.make_sites()
    sites = example.final_test(example.tell_rounds(run, rows, 1), rows, 3)
    run.on_sites([*sites, SiteRow(5, "WEST", 2, 1, -1, {})])
    cells = re.search(r'title="WEST".*?</tr>', render(run), re.S)
    assert cells is not None
    assert cells[0].count("<td>–</td>") == 3
    assert "NaN" not in cells[0]


def test_notes_on_the_data_stand_at_the_top(tmp_path: Path) -> None:
    html = render(make(tmp_path))
    top = html[: html.index('<dl class="facts">')]
    assert "About the data: WEST has 3 rows, fewer than partition.min_rows: left out." in top


def test_without_comparison_it_says_so(tmp_path: Path) -> None:
    page = Page(render(make(tmp_path, compare=False)))
    assert "Whether federated learning helped was not measured" in page.text
    assert "Local-only" not in page.text


def test_many_sites_switch_to_distributions(tmp_path: Path) -> None:
    run = make(tmp_path, sites=example.many_sites(70))
    page = Page(render(run))
    kinds = [trace["type"] for figure in page.figures[:2] for trace in figure["data"]]
    assert kinds == ["box", "box", "box", "histogram"]
    assert len(re.findall(r'<tr><td title="centre', render(run))) == 69  # one site has a single class
    assert "begins with the worst federated site" in page.text


def test_a_long_run_draws_lines_instead_of_bars() -> None:
    row = RoundRow(0, 2, 2, 10, 0.1, 0.5, {"loss": 0.5}, False, 10, 20, 1.0, {"train": 0.9, "other": 0.1})
    rows = [dataclasses.replace(row, round=i) for i in range(200)]
    for draw in (figures_rounds.traffic, figures_rounds.time):
        assert {trace["type"] for trace in draw(rows)["data"]} == {"scatter"}
        assert {trace["type"] for trace in draw(rows[:20])["data"]} == {"bar"}


def test_labels_too_few_to_be_reported_are_not_drawn() -> None:
    clients = [
        {"name": "A", "rows": 40, "labels": {"healthy": 30, "sick": 10}},
        {"name": "B", "rows": 12, "labels": {"healthy": 12, "sick": None}},
    ]
    figure = figures_sites.balance(clients)
    assert figure is not None
    # A: 30 / 40 and 10 / 40. B: only the 12 healthy rows are told.
    assert [trace["x"] for trace in figure["data"]] == [[0.75, 1.0], [0.25, 0.0]]
    assert figures_sites.balance([{"name": "A", "rows": 3, "labels": {}}]) is None


def test_clean_and_label() -> None:
    assert clean({"x": [1.0, float("nan"), (float("inf"),)]}) == {"x": [1.0, None, [None]]}
    assert label("a" * 30) == "a" * 23 + "…"
    assert label("<&>") == "&lt;&amp;&gt;"


def colours(dark: bool) -> dict[str, str]:
    light_block, dark_block = re.findall(r":root \{(.*?)\}", CSS, re.S)
    found = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", light_block))
    return {**found, **dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", dark_block))} if dark else found


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_meets_wcag_aa(dark: bool) -> None:
    found = colours(dark)
    for background in ("--page", "--panel"):
        for text in ("--text", "--muted", "--bad"):
            assert contrast(found[text], found[background]) >= 4.5, (text, background)
        # Graphics need 3 : 1.
        names = ("federated", "local", "centralised", "neutral", *(f"c{i}" for i in range(1, 9)))
        for name in names:
            assert contrast(found[f"--{name}"], found["--panel"]) >= 3, name
