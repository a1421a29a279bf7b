"""A site keeps its own client state, and can go back a few rounds if the server does.

A server that was killed resumes from a checkpoint and asks for rounds again that this site has already
trained. To give the same bits, each round starts from the state that it started from the first time: before
each round the site notes a mark of its store, and takes the last few back where it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flwr.app import RecordDict

from shoal.clients.state import ClientStateStore, DiskStateStore, Mark, StateBatch
from shoal.clients.worker import Answer, Job, Worker
from shoal.common.errors import CheckpointError
from shoal.common.journal import write_atomically
from shoal.common.messages.table import MESSAGES, TRAIN, round_of

_CHECKPOINTS: Final = 2  # that a server keeps


def rounds_repeated(checkpoint_every: int) -> int:
    """Return how many of the last rounds a resumed server may ask for again, and the one after them."""
    return _CHECKPOINTS * max(1, checkpoint_every) + 1


class SiteStates:
    """The state of one client, by the rounds that made it.

    Args:
        store: keeps the state.
        checkpoint_every: rounds between the server's checkpoints; the site keeps the states of as many rounds
            as a resumed server may repeat.
        marks: file of the marks before the last rounds; `None` keeps them in memory.
    """

    def __init__(self, store: ClientStateStore, checkpoint_every: int, marks: Path | None = None) -> None:
        self._store = store
        self._kept = rounds_repeated(checkpoint_every)
        self._file = marks
        self._before: list[tuple[int, Mark]] = []  # (round, state that it started from), ascending
        if marks is not None and marks.exists():
            found = json.loads(marks.read_text(encoding="utf-8"))
            self._before = [(int(number), Mark.from_json(mark)) for number, mark in found]
            self._store.restore(self._before[-1][1])

    @classmethod
    def in_folder(cls, folder: Path, checkpoint_every: int) -> SiteStates:
        """Return states that outlive the process, in a folder that is made if it is missing."""
        store = DiskStateStore(folder / "states")
        return cls(store, checkpoint_every, folder / "rounds.json")

    def read(self, client: int) -> StateBatch | None:
        """Return the state as it is now; `None` if there is none."""
        found = self._store.read([client])
        return found if len(found) else None

    def begin(self, round_number: int) -> None:
        """Take the state back to where a round started, if it was trained before; note where it starts now.

        Raises:
            CheckpointError: the round is further back than the site can go.
        """
        kept = [entry for entry in self._before if entry[0] < round_number]
        done = [entry for entry in self._before if entry[0] >= round_number]
        if done:
            forgotten = len(self._before) == self._kept and not kept  # rounds before the first that is known
            if forgotten and done[0][0] != round_number:
                raise CheckpointError(
                    f"the server repeats round {round_number}; this site goes back to {done[0][0]} at most",
                    hint="start a new run: its clients begin without a state",
                )
            self._store.restore(done[0][1])
        self._before = [*kept, (round_number, self._store.mark())][-self._kept :]
        self._store.release(self._before[0][1])
        if self._file is not None:
            marks = [[number, mark.to_json()] for number, mark in self._before]
            write_atomically(self._file, json.dumps(marks))

    def write(self, states: StateBatch) -> None:
        """Replace the state."""
        self._store.write(states)

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()


class StatefulWorker:
    """A worker that remembers its one client's state from round to round."""

    def __init__(self, worker: Worker, states: SiteStates) -> None:
        self._worker = worker
        self._states = states

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        """Run the app for one job, as `Worker.run` does."""
        (job,) = jobs
        kind = MESSAGES.get(job.message_type)
        if kind is None or not kind.state:
            return self._worker.run(content, jobs)
        number = round_of(content)
        if kind is TRAIN and number is not None:
            self._states.begin(number)
        answers = self._worker.run(content, jobs, self._states.read(job.client))
        for answer in answers:
            if answer.states is not None:
                self._states.write(answer.states)
        return answers
