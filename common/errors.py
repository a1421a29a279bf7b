"""Every error that shoal raises on purpose, with an exit code and a help text each.

ShoalError                    1   anything that shoal refuses
├── ConfigError               3   the scenario file or an override is wrong
├── DataError                 4   the data cannot be used
│   ├── MissingPackageError   5   an optional package that ships the data is not installed
│   ├── UnreadableDataError   6   a file, or a line of it, cannot be read
│   ├── EmptyClientError      7   a client holds too few rows to train and to be tested
│   └── SingleClassError      8   there is only one class to learn
├── ModelError                9   the model does not fit the data or the task
├── TrainingError            10   the training itself went wrong
│   ├── NonFiniteError       11   a loss or an update is not finite
│   └── TooFewRepliesError   12   too few clients answered to apply a round
├── WorkerError              13   a worker process could not be started or kept
├── DisclosureError          14   a message held something that may not leave the client
├── BudgetError              19   the privacy budget does not allow what was asked
├── RunError                 15   a run folder is missing, damaged or not what was expected
│   ├── CheckpointError      16   a checkpoint cannot be written, or none can be used
│   ├── StorageError         18   a file of a run cannot be written
│   └── IntegrityError       24   a log or a bundle is not as it was written, or of another key
└── TransportError           17   server and client cannot talk to each other, or one said what it may not
    └── MessageError         20   a request holds what its type does not have, or a value out of range
        └── FrozenWeightsError 21   a client lacks the frozen weights that a request names

Exit code 2 is the command line's own (an unknown option), 130 is Ctrl-C.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar


class ShoalError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what happened and what was expected, with values.
        hint: how to mend it; `None` where the message already says so.
    """

    exit_code: ClassVar[int] = 1
    help: ClassVar[str] = "Something was refused; the message says what and why."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  → {hint}")
        self.message = message
        self.hint = hint


class ConfigError(ShoalError):
    """The scenario is wrong; `problems` holds one line a problem, each with its place."""

    exit_code = 3
    help = "Run `shoal validate FILE` to see all problems at once; docs/config.md lists every key."

    def __init__(self, problems: str | Sequence[str], *, source: str = "", hint: str | None = None) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        count = len(self.problems)
        where = f" in {source}" if source else ""
        head = f"{count} problem{'s' if count != 1 else ''}{where}:"
        super().__init__("\n".join([head, *(f"  - {line}" for line in self.problems)]), hint=hint)


class DataError(ShoalError):
    """The data cannot be used as it is."""

    exit_code = 4
    help = "Run `shoal data SCENARIO` to see what each client holds."


class MissingPackageError(DataError):
    """An optional package that ships a data set is not installed."""

    exit_code = 5
    help = "Install the extra that the message names."


class UnreadableDataError(DataError):
    """A data file, or a line of it, cannot be read."""

    exit_code = 6
    help = "Mend the file at the place that the message names; no row's content is shown."


class EmptyClientError(DataError):
    """A client holds too few rows to train and to be tested."""

    exit_code = 7
    help = "Use fewer clients, another partition, or raise partition.min_rows to drop such clients."


class SingleClassError(DataError):
    """The labels hold a single class, so there is nothing to learn."""

    exit_code = 8
    help = "Check data.label and data.positive: at least two classes are needed."


class ModelError(ShoalError):
    """The model cannot be built, or does not fit the data or the task."""

    exit_code = 9
    help = "Compare the model's input and output shapes with what the message expects."


class TrainingError(ShoalError):
    """The training went wrong."""

    exit_code = 10
    help = "The run folder keeps all results up to this round."


class NonFiniteError(TrainingError):
    """A loss or an update holds NaN or infinity."""

    exit_code = 11
    help = "Lower training.learning_rate, scale the inputs, or clip (training.optimizer_args.clipnorm)."

    @classmethod
    def after_training(cls, loss: float, steps: int, learning_rate: float) -> NonFiniteError:
        """Return the error of a local training that diverged."""
        return cls(
            f"local training gave a loss of {loss} after {steps} steps with learning rate "
            f"{learning_rate:g}; expected finite loss and weights",
            hint="lower training.learning_rate, or set training.optimizer_args.clipnorm",
        )

    @classmethod
    def after_update(cls) -> NonFiniteError:
        """Return the error of an update that does not fit into what it is sent in."""
        return cls(
            "the update holds numbers beyond 65,504, the largest that float16 has",
            hint='set update.clip_norm, lower training.learning_rate, or use update.compress = "int8"',
        )

    @classmethod
    def forged(cls) -> NonFiniteError:
        """Return the error of a malicious client's update that the model's type cannot hold."""
        return cls("the forged update is not finite", hint="lower the numbers in attack.args")


class TooFewRepliesError(TrainingError):
    """Fewer clients than server.min_success answered, so the round was not applied."""

    exit_code = 12
    help = "See the failures listed; lower server.min_success only if the rest may stand for all."


class WorkerError(ShoalError):
    """A worker process could not be started, or died more often than allowed."""

    exit_code = 13
    help = "Lower resources.workers or the model's size; the log holds the worker's last words."


class DisclosureError(ShoalError):
    """A message from a client held something that is not on the list of what may leave."""

    exit_code = 14
    help = "common/records.py lists what each kind of message may carry."


class BudgetError(ShoalError):
    """The privacy budget does not allow what was asked."""

    exit_code = 19
    help = "docs/privacy.md tells what spends a budget: rounds, noise, sampling and statistics."


class RunError(ShoalError):
    """A run folder is missing, damaged or not what was expected."""

    exit_code = 15
    help = "`shoal list` shows the runs there are."


class CheckpointError(RunError):
    """A checkpoint cannot be written, or there is none that a run can go on from."""

    exit_code = 16
    help = "docs/reliability.md tells what a checkpoint holds and when one is refused."


class StorageError(RunError):
    """A file of a run cannot be written: the disk is full, or has failed."""

    exit_code = 18
    help = "What was written before is kept. Make room or mend the disk, then `shoal resume RUN`."


class IntegrityError(RunError):
    """A log or a bundle is not as it was written, or not signed with the expected key."""

    exit_code = 24
    help = "docs/handover.md tells what each check proves. Ask the other side for its copy and compare."


class TransportError(ShoalError):
    """Server and client cannot talk to each other, or one of them said what it may not."""

    exit_code = 17
    help = "docs/transport.md tells what each side needs, and what the other side checks."


class MessageError(TransportError):
    """A request holds a record or key that its type does not have, lacks one, or has a value out of range."""

    exit_code = 20
    help = "docs/messages.md lists what each request holds. Do both sides run the same version of shoal?"


class FrozenWeightsError(MessageError):
    """A client lacks the frozen weights whose hash a request names; the server then sends them."""

    exit_code = 21
    help = "The server sends frozen weights to a site that lacks them; docs/messages.md tells how."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to `name` in spelling, or `None` if none is near."""
    by_lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is no known `what`, with the nearest known name and all of them."""
    names = sorted(known)
    near = nearest(name, names)
    guess = f' Did you mean "{near}"?' if near else ""
    return f'unknown {what} "{name}".{guess} Known: {", ".join(names)}'
