"""Names of files for names that come from data: reversible, and never a path.

Percent-encoding (RFC 3986, section 2.1) of what no file system or shell takes as a plain name; all other
characters, Chinese ones too, stay as they are.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from shoal.common.errors import DataError

_MOST_BYTES: Final = 200  # file systems take 255, and suffixes follow
_UNSAFE: Final = re.compile(r'[%/\\:*?"<>|\x00-\x1f\x7f]|^[. ~-]|[. ]$')
_DEVICES: Final = re.compile(r"(CON|PRN|AUX|NUL|COM\d|LPT\d)(\.|$)", re.IGNORECASE)  # of Windows


def file_name(name: str) -> str:
    """Return a file name, without a suffix, for any name; `original_name` undoes it.

    Raises:
        DataError: it would be too long for a file system.
    """
    found = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name) or "%"
    if _DEVICES.match(found):
        found = f"%{ord(found[0]):02X}{found[1:]}"
    size = len(found.encode())
    if size > _MOST_BYTES:
        raise DataError(
            f"the name of a client takes {size} bytes as a file name; at most {_MOST_BYTES} fit",
            hint="give the clients shorter names in the column or folder that names them",
        )
    return found


def original_name(file: str) -> str:
    """Return the name that a file name was made from."""
    return "" if file == "%" else unquote(file)
