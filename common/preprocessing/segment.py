"""Cuts Chinese text into words with jieba; the only module that imports it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

Cut = Callable[[str], Iterable[str]]


@cache
def _cutter() -> Cut:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba's regular expressions and its pkg_resources import
        import jieba

        jieba.setLogLevel(logging.WARNING)
        # By default, jieba caches its dictionary in the shared temporary directory, in a format that is not
        # safe to read if others can write it: keep it where only this user can write.
        folder = Path.home() / ".cache" / "shoal"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            jieba.dt.tmp_dir = str(folder)
        except OSError:
            pass  # the home directory is not writable: jieba rebuilds its dictionary, which takes a second
        jieba.initialize()
    cut: Cut = jieba.cut
    return cut


def segment(text: str) -> list[str]:
    """Return the words of a text in order, without white space."""
    return [word for word in _cutter()(text) if word.strip()]
