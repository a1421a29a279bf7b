"""Reads the bytes of a file, decompressed and as UTF-8; the encoding is detected where it is not named."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from shoal.common.errors import UnreadableDataError

COMPRESSED: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the start of it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH_RUNS: Final = re.compile(rb"[\x80-\xff]+")
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file in memory.

    Attributes:
        data: its content in UTF-8, without a byte order mark, lines ended by newlines.
        encoding: the encoding that it had; detected: whether that was detected, and is not UTF-8.
    """

    data: bytes
    encoding: str
    detected: bool = False


def read_text_file(path: Path, encoding: str | None) -> TextFile:
    """Read a text file; `.gz`, `.bz2` and `.zst` files are decompressed.

    Without an encoding it is told from a byte order mark; otherwise UTF-8 is taken if the file is valid
    UTF-8, GBK if nearly all bytes above 127 come in pairs as Chinese characters do, and Windows-1252 or
    Latin-1 if not.

    Raises:
        UnreadableDataError: it names the file and, for a wrong encoding, the line.
    """
    raw = _decompressed(path)
    marked = next((name for mark, name in _BOMS if raw.startswith(mark)), None)
    if encoding is not None:
        chosen = marked if marked == "utf-8-sig" and _same(encoding, "utf-8") else encoding
        return TextFile(_as_utf8(path, raw, chosen), encoding)
    if marked is not None:
        return TextFile(_as_utf8(path, raw, marked), marked.removesuffix("-sig"))
    if b"\0" in raw[:_CHUNK]:
        raise UnreadableDataError(
            f"{path} is no text file: it contains zero bytes",
            hint="save it as CSV in UTF-8, or set data.args.encoding if it is UTF-16 or UTF-32",
        )
    if _invalid_at(raw) is None:
        return TextFile(_lines(raw), "utf-8")
    guess = detect(raw)
    return TextFile(_as_utf8(path, raw, guess), guess, detected=True)


def detect(raw: bytes) -> str:
    """Return the likely encoding of bytes that are not UTF-8: "gbk", "windows-1252" or "latin-1"."""
    runs = [len(run) for run in _HIGH_RUNS.findall(raw[: 4 * _CHUNK])]
    paired = sum(size for size in runs if size % 2 == 0)
    # In Western text a letter with an accent mostly stands between plain letters: a run of one.
    if paired >= 0.8 * sum(runs) and _decodes(raw, "gb18030"):
        return "gbk" if _decodes(raw, "gbk") else "gb18030"
    return "windows-1252" if _decodes(raw, "windows-1252") else "latin-1"


def _decompressed(path: Path) -> bytes:
    method = COMPRESSED.get(path.suffix.lower())
    try:
        # Python opens it: Arrow encodes no name beyond ASCII where the locale is C.
        with path.open("rb") as raw, pa.input_stream(raw, compression=method) as file:
            content: bytes = file.read()
            return content
    except (OSError, pa.ArrowException) as error:
        if method is not None and path.is_file():
            raise UnreadableDataError(f"{path} cannot be decompressed as {method}") from None
        raise UnreadableDataError(f"{path} cannot be read: {type(error).__name__}") from None


def _as_utf8(path: Path, raw: bytes, encoding: str) -> bytes:
    if _same(encoding, "utf-8"):
        place = _invalid_at(raw)
        if place is None:
            return _lines(raw)
        raise _undecodable(path, encoding, raw.count(b"\n", 0, place) + 1)
    try:
        return _lines(raw.decode(encoding).encode())
    except UnicodeDecodeError as error:
        raise _undecodable(path, encoding, raw.count(b"\n", 0, error.start) + 1) from None
    except UnicodeEncodeError:  # half of a pair of UTF-16, which some decoders let through
        raise _undecodable(path, encoding, None) from None


def _undecodable(path: Path, encoding: str, line: int | None) -> UnreadableDataError:
    place = "" if line is None else f", line {line}"
    return UnreadableDataError(
        f"{path}{place}: not valid {encoding.upper()}",
        hint='save it as UTF-8, or set its encoding, e.g. data.args.encoding = "gbk" or "latin-1"',
    )


def _lines(data: bytes) -> bytes:
    """Return text whose lines end with a newline, also from a Mac of the last century."""
    return data.replace(b"\r", b"\n") if b"\r" in data and b"\n" not in data else data


def _invalid_at(raw: bytes) -> int | None:
    """Return the place of the first byte that is not UTF-8, or `None`."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(raw) + 1, _CHUNK):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(raw[start : start + _CHUNK], final=start + _CHUNK > len(raw))
        except UnicodeDecodeError as error:
            return start - held + error.start
    return None


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _same(a: str, b: str) -> bool:
    return codecs.lookup(a).name == codecs.lookup(b).name
