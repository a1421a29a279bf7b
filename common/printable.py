"""Text that others chose, such as names in data and messages of the other side, made harmless to print."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Final

# Control characters (C0, DEL, C1), line separators, and marks that change the direction of text: they can
# move a terminal's cursor, start a new line of a log, or show a name that is another one.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return text on one line, with an escape such as \x1b for each character that is not printable."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def problems_of_names(what: str, names: Iterable[str]) -> list[str]:
    """Return one line for each name that would not print as it is; `what`: kind of name, e.g. "column"."""
    return [
        f'the {what} "{printable(name)}" contains a control character; rename it'
        for name in names
        if _UNPRINTABLE.search(name)
    ]


def log_to_terminal(level: int) -> None:
    """Send log messages to the terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)


class PrintableFormatter(logging.Formatter):
    """Formats each message of a log as one printable line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is logging's
        """Escape the message, which may quote the other side."""
        record.message = printable(record.message)
        return super().formatMessage(record)
