"""The answers that a site has given in a run: a question that is repeated gets the same bytes again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from shoal.common.errors import DisclosureError, RunError
from shoal.common.journal import append_line, write_atomically
from shoal.common.wire.codec import pack, unpack

_JOURNAL = "questions.jsonl"
_SIZE_BYTES = 8


class Answers:
    """The questions and answers of one run, on disk.

    Args:
        folder: of the run, made if it is missing; kept: answers of one kind whose bytes are kept.

    Raises:
        RunError: the record of questions is damaged.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._kept = folder, max(1, kept)
        self._path = folder / _JOURNAL
        self._questions: list[Mapping[str, Any]] = _read(self._path)

    def answered(self, stage: str, asked: str) -> RecordDict | None:
        """Return the answer to a question; `None` if there is none.

        Args:
            stage: of the question; asked: hash of the request.

        Raises:
            DisclosureError: it was given so long ago that its bytes are gone; a new one would be another.
        """
        file = self._file(stage, asked)
        if not file.exists():
            return None
        data = file.read_bytes()
        if not data:
            raise DisclosureError(f"{stage} was answered before, and the answer is no longer kept")
        size = int.from_bytes(data[:_SIZE_BYTES], "little")
        return unpack(memoryview(data)[_SIZE_BYTES:], size)

    def different(self, family: str) -> int:
        """Return how many different questions of a kind have been asked."""
        return sum(one["family"] == family for one in self._questions)

    def begun(self, stage: str, asked: str = "") -> bool:
        """Return whether a question has been asked: with this request, or with any."""
        return any(one["stage"] == stage and asked in ("", one["asked"]) for one in self._questions)

    def begin(self, family: str, stage: str, asked: str) -> None:
        """Record a question durably, before it is answered."""
        if self.begun(stage, asked):
            return
        entry = {"family": family, "stage": stage, "asked": asked}
        append_line(self._path, entry)
        self._questions.append(entry)

    def keep(self, family: str, stage: str, asked: str, answer: RecordDict) -> None:
        """Store an answer durably, before it is sent, and discard the oldest of its kind."""
        packed = pack(answer)
        data = b"".join([packed.content_bytes.to_bytes(_SIZE_BYTES, "little"), *packed.parts])
        write_atomically(self._file(stage, asked), data)
        same = [one for one in self._questions if one["family"] == family]
        for one in same[: -self._kept]:
            old = self._file(one["stage"], one["asked"])
            if old.exists():
                os.truncate(old, 0)

    def _file(self, stage: str, asked: str) -> Path:
        return self._folder / f"{stage.replace(' ', '-')}-{asked[:16]}.bin"


def _read(path: Path) -> list[Mapping[str, Any]]:
    """Read the questions; an incomplete last line was never answered."""
    if not path.exists():
        return []
    content = path.read_bytes()
    try:
        found = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
        if all({"family", "stage", "asked"} <= set(one) for one in found):
            return found
    except ValueError:
        pass
    raise RunError(
        f"{path} is damaged, so it is unknown what this site has answered",
        hint="restore the file from a copy, or take part in a new run",
    )
