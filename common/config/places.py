"""Finds the line of a key in a TOML text, for messages that name the place.

`tomllib` returns values without positions. This scanner reads a text that `tomllib` has already
accepted, so it only has to distinguish keys, tables, strings and brackets; it checks nothing.
"""

from __future__ import annotations

import re
import tomllib

Keys = tuple[str, ...]

# A whole string of any kind (the closing quotes of a multi-line one may follow one or two more
# quotes), a comment, or a bracket; nothing else in a value matters here.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""+|\'\'\'.*?\'\'\'+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}\n]',
    re.DOTALL,
)
_KEY = re.compile(r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+|[ \t]*\.[ \t]*)+""")


def key_parts(dotted: str) -> Keys:
    """Split a TOML key such as `training."odd key".x` into its parts.

    Raises:
        ValueError: it is not a key.
    """
    if "\n" in dotted:
        raise ValueError("a key stands on one line")
    table = tomllib.loads(f"{dotted} = 0")
    parts: list[str] = []
    inner: object = table
    while isinstance(inner, dict):
        ((part, inner),) = inner.items()
        parts.append(part)
    return tuple(parts)


def key_lines(text: str) -> dict[Keys, int]:
    """Map each key and table of a valid TOML text to its line, starting at 1.

    A key inside an inline table or an element of an array has no entry of its own: `line_of` then
    finds the line where the value starts.
    """
    text = text.replace("\r\n", "\n")
    lines: dict[Keys, int] = {}
    table: Keys = ()
    position = 0
    while position < len(text):
        end = _statement_end(text, position)
        statement = text[position:end]
        stripped = statement.lstrip(" \t")
        line = text.count("\n", 0, position) + 1
        if stripped.startswith("["):
            match = _KEY.search(stripped.lstrip("[ \t"))
            table = key_parts(match.group().strip()) if match else ()
            for length in range(1, len(table) + 1):
                lines.setdefault(table[:length], line)
        elif match := _KEY.match(stripped):
            parts = key_parts(match.group().strip())
            for length in range(1, len(parts) + 1):
                lines.setdefault(table + parts[:length], line)
        position = end + 1
    return lines


def line_of(lines: dict[Keys, int], keys: Keys) -> int | None:
    """Return the line of `keys`, or of the nearest table or value that contains it."""
    for length in range(len(keys), 0, -1):
        if keys[:length] in lines:
            return lines[keys[:length]]
    return None


def _statement_end(text: str, start: int) -> int:
    """Return the index of the newline that ends the statement at `start`."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        first = token.group()[0]
        if first in "[{":
            depth += 1
        elif first in "]}":
            depth -= 1
        elif first == "\n" and depth <= 0:
            return token.start()
    return len(text)
