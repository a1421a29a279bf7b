"""Documents and tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first column is left-aligned, the others right-aligned."""
    rule = ["---", *("---:" for _ in columns[1:])]
    return [_line(columns), _line(rule), *(_line([_cell(value) for value in row]) for row in rows)]


def document(lines: Iterable[str]) -> str:
    """Return lines as a document in which text from data or a scenario is neither HTML nor a link."""
    return "\n".join(map(escaped, lines)) + "\n"


def escaped(line: str) -> str:
    """Return a line without HTML and links."""
    return line.replace("<", "&lt;").replace("](", "]\\(")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
