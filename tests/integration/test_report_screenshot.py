"""The report in a real browser, at desk and phone width, in light and dark."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from shoal.simulations.report import write_report
from shoal.simulations.results import RunFolder

_PATH = Path(__file__).parents[1] / "unit" / "example_run.py"
_SPEC = importlib.util.spec_from_file_location("example_run", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
example: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)

HEIGHT = 1700
# Each start of a browser takes seconds: the layout is looked at in every width, the colours in every theme.
LAYOUTS = [(1280, False), (390, True)]
COLOURS = [(1280, True), (390, False)]

# The page goes into a frame, because a browser's window has a least width that is more than a phone's.
WRAPPER = """<!doctype html><meta charset="utf-8"><style>*{{margin:0}}iframe{{border:0;display:block}}</style>
<iframe id="page" src="{page}" width="{width}" height="{height}"></iframe><pre id="found"></pre>
<script>
document.getElementById("page").onload = () => setTimeout(() => {{
  const page = document.getElementById("page").contentWindow, root = page.document.documentElement;
  const outside = [...page.document.querySelectorAll("body *")].filter((element) =>
    element.getBoundingClientRect().right > {width} + 1 && !element.closest(".scroll, pre, svg"));
  const plots = [...page.document.querySelectorAll("[data-figure]")].filter((it) => !it.closest("details"));
  document.getElementById("found").textContent = JSON.stringify({{
    scroll_width: root.scrollWidth,
    outside: outside.map((element) => element.outerHTML.slice(0, 80)),
    plots: plots.length,
    drawn: plots.filter((place) => place.querySelector(".cartesianlayer .xy")).length,
    too_wide: plots.filter((place) =>
      place.querySelector("svg.main-svg").getBoundingClientRect().width > place.clientWidth + 1).length,
    loaded: page.performance.getEntriesByType("resource").map((entry) => entry.name),
    dark: page.matchMedia("(prefers-color-scheme: dark)").matches,
  }});
}}, 1500);
</script>"""


def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if "CI" in os.environ:
            pytest.fail("no Chromium here, and CI must look at the report")
        pytest.skip("no Chromium here")
    return found


def look(report: Path, folder: Path, width: int, dark: bool, *action: str) -> str:
    """Open the report in a browser and return what it prints; `action` is a screenshot or a dump."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(WRAPPER.format(page=report.as_uri(), width=width, height=HEIGHT))
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--allow-file-access-from-files",  # lets the wrapper measure the page in its frame
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=10000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={max(width, 500)},{HEIGHT}",
        *action,
        wrapper.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = RunFolder.create(example.scenario(tmp_path_factory.mktemp("runs")))
    sites = example.make_sites()
    sites = {**sites, "a site whose name is much too long for a phone 很长的名字": sites.pop("STMW")}
    run.write_overview(example.overview(sites))
    weights = example.tell_rounds(run, sites, 12, failing="SVHC")
    run.on_sites(example.final_test(weights, sites, 36))
    run.finish("finished", {})
    write_report(run)
    return run.path / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), LAYOUTS)
def test_layout(report: Path, tmp_path: Path, width: int, dark: bool) -> None:
    page = look(report, tmp_path, width, dark, "--dump-dom")
    printed = re.search(r'<pre id="found">(\{.*?\})</pre>', page, re.S)
    assert printed is not None, "the page did not load"
    found = json.loads(printed[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert found["dark"] is dark
    assert found["scroll_width"] <= width
    assert found["outside"] == []
    assert found["plots"] == 11  # sites, three curves, two of traffic, two of time, three of the data
    assert found["drawn"] == found["plots"]
    assert found["too_wide"] == 0
    assert found["loaded"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), COLOURS)
def test_screenshot(report: Path, tmp_path: Path, width: int, dark: bool) -> None:
    path = tmp_path / f"report-{width}-{'dark' if dark else 'light'}.png"
    look(report, tmp_path, width, dark, f"--screenshot={path}")
    with Image.open(path) as image:
        picture = image.convert("RGB").crop((0, 0, width, HEIGHT))
    mean = ImageStat.Stat(picture.convert("L")).mean[0]
    assert mean < 60 if dark else mean > 200
    # The page's margin has the background of the theme, as report.css sets it.
    assert picture.getpixel((3, 3)) == ((0x10, 0x14, 0x1B) if dark else (0xF6, 0xF7, 0xF9))
    # Points and lines of the federated model are drawn in its colour: the plot took the theme's.
    federated = (0x69, 0xB1, 0xFF) if dark else (0x0A, 0x63, 0xC2)
    pixels = sum(
        count
        for count, colour in picture.getcolors(picture.width * picture.height) or []
        if colour == federated
    )
    assert pixels > 200
