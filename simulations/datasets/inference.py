"""Decides once, from all rows of all sites, what each column is; what would be lost needs the user's word.

The result is the schema, by which every site and every prediction reads its rows
(`common/tabular/reading.py`). A decision never depends on one site's rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from shoal.common.tabular.file_format import FileFormat
from shoal.common.tabular.values import NUMBER, is_text, plain, to_texts, without_separators

_FEW_ROWS: Final = 20  # with fewer values, nothing is said about a column's nature
_MOSTLY: Final = 0.5
_NEARLY_ALL: Final = 0.9
_LONG_TEXT: Final = 25  # characters of a typical free text
_EXACT_DIGITS: Final = 15  # whole numbers with more may not survive as float64

_CODE: Final = r"^[+-]?0\d+$"  # as in "007" or "01234", whose zeros belong to it
_LONG_NUMBER: Final = rf"^[+-]?\d{{{_EXACT_DIGITS + 1},}}$"
_COMMA_NUMBER: Final = r"^[+-]?\d+(\.\d{3})*,\d+$|^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"
_DATE: Final = (
    r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ]\d{1,2}:\d{2}.*)?$|^\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( .*)?$"
    r"|^\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?$"
)


@dataclass(frozen=True, slots=True)
class Inferred:
    """A column with its type.

    Attributes:
        values: float64 or text; notes: what was decided and may surprise; problems: why the column
            cannot be used before someone decides.
    """

    values: pa.ChunkedArray
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def infer(column: pa.ChunkedArray, name: str, form: FileFormat, *, typed: bool, min_count: int) -> Inferred:
    """Decide whether a column holds numbers or categories.

    Args:
        column: as read; name: for the text of notes and problems; form: of the file.
        typed: whether its type is the file's own; otherwise it is text, which is looked at.
        min_count: rows that a category needs to be reported by a site (`preprocessing.min_count`).
    """
    column = plain(column)
    if not is_text(column.type):
        return Inferred(column, tuple(_about_numbers(column, name)), _refused_type(column, name))
    texts = to_texts(column, form)
    notes = padded(column, name, form)
    filled = texts.drop_null()
    if typed or not len(filled):
        return _categories(texts, filled, name, notes, min_count) if len(filled) else _empty(texts, name)
    numbers = without_separators(filled, form)
    share = _share(numbers, NUMBER)
    if _any(filled, _CODE):
        note = f'"{name}" holds codes with leading zeros and was kept as text: a category, not a number'
        return _categories(texts, filled, name, [*notes, note], min_count)
    if _any(filled, _LONG_NUMBER):
        return _categories(texts, filled, name, notes, min_count)
    if share == 1.0:
        values = without_separators(texts, form).cast(pa.float64())
        return Inferred(values, (*notes, *_about_numbers(values, name)))
    problem = _ambiguous(filled, numbers, share, name)
    if problem is not None:
        return Inferred(texts, tuple(notes), (problem,))
    return _categories(texts, filled, name, notes, min_count)


def _ambiguous(filled: pa.ChunkedArray, numbers: pa.ChunkedArray, share: float, name: str) -> str | None:
    """Return the question that a column of nearly numbers or dates raises."""
    if share >= _MOSTLY:
        odd = pc.indices_nonzero(pc.invert(pc.match_substring_regex(numbers, NUMBER)))
        return (
            f'"{name}" holds numbers but for {len(odd)} of {len(filled)} values: list texts that mean '
            f'"missing" in data.args.missing, or set data.args.categorical = ["{name}"]'
            + (", or data.args.header = 2 if units follow the names" if _only_first(odd) else "")
        )
    if _share(filled, _COMMA_NUMBER) >= _MOSTLY:
        return (
            f'"{name}" holds numbers with commas: set data.args.decimal = ",", or data.args.thousands = ",", '
            f'or data.args.categorical = ["{name}"]'
        )
    if _share(filled, _DATE) >= _NEARLY_ALL:
        return _date(name, "dates or times")
    return None


def _only_first(odd: pa.Array) -> bool:
    return len(odd) == 1 and odd[0].as_py() == 0


def _date(name: str, what: str) -> str:
    return (
        f'"{name}" holds {what}, which are no input: convert it to a number, e.g. an age in days, or leave '
        f'it out with data.exclude = ["{name}"]'
    )


def _refused_type(column: pa.ChunkedArray, name: str) -> tuple[str, ...]:
    kind = column.type
    if pa.types.is_temporal(kind):
        return (_date(name, f"values of type {kind}"),)
    known = (
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_boolean,
        pa.types.is_null,
    )
    if any(check(kind) for check in known):
        return ()
    return (
        f'"{name}" has values of type {kind}; expected numbers, text or true/false: convert it, or leave it '
        f'out with data.exclude = ["{name}"]',
    )


def _categories(
    texts: pa.ChunkedArray, filled: pa.ChunkedArray, name: str, notes: Sequence[str], min_count: int
) -> Inferred:
    """Return a text column as categories, unless none of them would be reported by any site."""
    counts = pc.value_counts(filled).field("counts")
    most, distinct = pc.max(counts).as_py(), len(counts)
    if distinct == 1:
        notes = [*notes, f'"{name}" has the same value in every row, so nothing can be learnt from it']
    if len(filled) < _FEW_ROWS or most >= min_count:
        return Inferred(texts, tuple(notes))
    length = pc.mean(pc.utf8_length(filled)).as_py()
    fixes = [f'data.exclude = ["{name}"]']
    if length >= _LONG_TEXT:
        what = "free text"
        fixes.append(f'data.text_column = "{name}" to learn from it')
    elif distinct >= _NEARLY_ALL * len(filled):
        what = "an identifier"
    else:
        what = "values that hardly ever repeat"
    return Inferred(
        texts,
        tuple(notes),
        (
            f'"{name}" looks like {what}: {distinct} different texts in {len(filled)} rows, none in '
            f"preprocessing.min_count = {min_count} of them, so that no category would be left. "
            f"Set {' or '.join(fixes)}",
        ),
    )


def _empty(texts: pa.ChunkedArray, name: str) -> Inferred:
    return Inferred(texts.cast(pa.float64()), (f'"{name}" is empty in every row',))


def _about_numbers(values: pa.ChunkedArray, name: str) -> list[str]:
    """Return notes about a column of numbers: constant, or an identifier."""
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return []
    filled = values.drop_null()
    if not len(filled):
        return []
    ends = pc.min_max(filled)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if low == high:
        return [f'"{name}" has the same value in every row, so nothing can be learnt from it']
    counts_up = len(filled) >= _FEW_ROWS and high - low == len(filled) - 1
    if counts_up and pc.count_distinct(filled).as_py() == len(filled):
        return [f'"{name}" counts the rows; if it identifies them, set data.exclude = ["{name}"]']
    return []


def padded(column: pa.ChunkedArray, name: str, form: FileFormat) -> list[str]:
    """Return a note where white space around texts was removed."""
    column = plain(column)
    if not is_text(column.type):
        return []
    texts = to_texts(column, form)
    both = pc.and_(pc.is_valid(texts), pc.not_equal(column, pc.fill_null(texts, "")))
    count = pc.sum(pc.fill_null(both, False)).as_py() or 0
    return [f'"{name}": white space around {count} values was removed'] if count else []


def _share(texts: pa.ChunkedArray, pattern: str) -> float:
    return (pc.sum(pc.match_substring_regex(texts, pattern)).as_py() or 0) / max(1, len(texts))


def _any(texts: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(texts, pattern)).as_py())
