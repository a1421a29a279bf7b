"""Which line a key stands on, whatever strings, comments and brackets stand between."""

from __future__ import annotations

import pytest

from shoal.common.config.places import key_lines, key_parts, line_of

TRICKY = '''\
# [not.a.table]
a = "x # no comment" # [no]
"odd = key" = 1

[t] # comment = 3
b = """
[c]
d = "1" """
e = [
  1, # ]
  "]",
  { f = 2 },
]
'g.h'.i = \'\'\'
x = 1\'\'\'

  [ t . "u v" ]
w = { x = [1, 2], y = "}" }
z = """quotes inside: ""\\""" and at the end"""""
[[many]]
n = 1
[[many]]
n = 2
'''


def test_lines_of_a_tricky_text() -> None:
    assert key_lines(TRICKY) == {
        ("a",): 2,
        ("odd = key",): 3,
        ("t",): 5,
        ("t", "b"): 6,
        ("t", "e"): 9,
        ("t", "g.h"): 14,
        ("t", "g.h", "i"): 14,
        ("t", "u v"): 17,
        ("t", "u v", "w"): 18,
        ("t", "u v", "z"): 19,
        ("many",): 20,
        ("many", "n"): 21,
    }


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 2),
        (("t", "e", "2", "f"), 9),  # an element has the line of its array
        (("t", "missing"), 5),
        (("missing",), None),
        ((), None),
    ],
)
def test_nearest_holder_gives_the_line(keys: tuple[str, ...], line: int | None) -> None:
    assert line_of(key_lines(TRICKY), keys) == line


def test_key_parts() -> None:
    assert key_parts("a.b") == ("a", "b")
    assert key_parts(' a . "b.c" ') == ("a", "b.c")
    for wrong in ("", "a b", "a.", "a\nb", "[a]"):
        with pytest.raises(ValueError, match=r"stands on one line|\(at "):
            key_parts(wrong)
