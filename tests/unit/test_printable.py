"""Text that others chose does nothing to a terminal, a log or a document."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from shoal.clients.pilot.site_data import read_schema
from shoal.common.config.file import load_scenario
from shoal.common.errors import ConfigError, DataError, UnreadableDataError
from shoal.common.printable import PrintableFormatter, printable, problems_of_names
from shoal.common.schema import Column, Schema
from shoal.simulations import datasets
from shoal.simulations.report.markdown import document, table

ESC = "a\x1b[2Jb"


def test_control_characters_become_escapes_and_other_text_stays() -> None:
    assert printable(ESC) == "a\\x1b[2Jb"
    assert printable("two\nlines\u202eabc\u2028") == "two\\nlines\\u202eabc\\u2028"
    assert printable("Zürich – 北京 <b> =1") == "Zürich – 北京 <b> =1"


def test_a_message_is_one_line_of_a_log() -> None:
    """A client whose error has a newline could otherwise add a line that looks like the server's own."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("shoal.test_printable")
    logger.addHandler(handler)
    logger.propagate = False
    logger.warning("refused: %s", "x\n2026-01-01 all is well\x1b[31m")
    assert stream.getvalue() == "WARNING refused: x\\n2026-01-01 all is well\\x1b[31m\n"


@pytest.mark.parametrize("place", ["site", "column", "class"])
def test_names_in_data_that_would_not_print_are_refused_and_shown_escaped(tmp_path: Path, place: str) -> None:
    names = {"site": "north", "column": "age", "class": "ill"} | {place: ESC}
    site, ill = names["site"], names["class"]
    rows = [f"{site if k % 2 else 'south'},{k},{ill if k % 3 else 'well'}" for k in range(80)]
    (tmp_path / "data.csv").write_text("\n".join([f"site,{names['column']},label", *rows]))
    settings = ["data.source=csv", f"data.path={tmp_path / 'data.csv'}", "data.client_column=site",
                "data.label=label", "data.positive=well"]  # fmt: skip
    with pytest.raises((DataError, ConfigError)) as caught:
        datasets.load_population(load_scenario("medical-thyroid", settings))
    assert "a\\x1b[2Jb" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_schema_with_such_names_is_refused_by_a_site(tmp_path: Path) -> None:
    schema = Schema((Column(ESC, "numeric"),), "binary", ("no", "yes"), "ill")
    (tmp_path / "schema.json").write_text(schema.to_json())
    with pytest.raises(UnreadableDataError, match="contains a control character"):
        read_schema(tmp_path / "schema.json")


def test_a_description_is_one_line() -> None:
    with pytest.raises(ConfigError, match="description: may contain one line of text, got"):
        load_scenario("linear", ['description="a\\nb"'])
    assert problems_of_names("site", ["fine", "x\ty"]) == [
        'the site "x\\ty" contains a control character; rename it'
    ]


def test_text_in_a_document_is_neither_html_nor_a_link() -> None:
    lines = ["<svg onload=alert(1)> and [x](javascript:alert(1))", *table(("a",), [["<b>|c"]])]
    assert document(lines).splitlines() == [
        "&lt;svg onload=alert(1)> and [x]\\(javascript:alert(1))",
        "| a |",
        "| --- |",
        "| &lt;b>\\|c |",
    ]
