"""Every error that shoal raises on purpose, each with an exit code and a help text.

ShoalError                    1   base class of all errors
├── ConfigError               3   the scenario file or an override is wrong
├── DataError                 4   the data cannot be used
│   ├── MissingPackageError   5   an optional package that ships the data is not installed
│   ├── UnreadableDataError   6   a file, or a line of it, cannot be read
│   ├── EmptyClientError      7   a client has too few rows for training and testing
│   └── SingleClassError      8   the labels have only one class
├── ModelError                9   the model does not fit the data or the task
├── TrainingError            10   training failed
│   ├── NonFiniteError       11   a loss or an update is not finite
│   └── TooFewRepliesError   12   too few clients replied to complete a round
├── WorkerError              13   a worker process could not be started, or kept dying
├── DisclosureError          14   a client's message held something that it may not send
├── BudgetError              19   the privacy budget does not allow the request
├── RunError                 15   a run folder is missing, damaged or unsuitable
│   ├── CheckpointError      16   a checkpoint cannot be written, or none is usable
│   ├── StorageError         18   a file of a run cannot be written
│   └── IntegrityError       24   a log or bundle was changed, or is not signed with the expected key
└── TransportError           17   server and client cannot communicate, or one broke the protocol
    └── MessageError         20   a request does not fit its type: an unknown, missing or out-of-range key
        └── FrozenWeightsError 21   a client lacks the frozen weights that a request names

Exit code 2 means wrong usage of the command line (an unknown option), 130 means Ctrl-C.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar


class ShoalError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what happened and what was expected, with values.
        hint: how to fix it; `None` where the message already says so.
    """

    exit_code: ClassVar[int] = 1
    help: ClassVar[str] = "The message says what happened and how to fix it."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  → {hint}")
        self.message = message
        self.hint = hint


class ConfigError(ShoalError):
    """The scenario has problems; each is listed with its line or option."""

    exit_code = 3
    help = "docs/config.md lists every key."

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
    help = "Run the installation command in the message."


class UnreadableDataError(DataError):
    """A data file, or a line of it, cannot be read."""

    exit_code = 6
    help = "Fix the file at the place in the message. Messages never show the content of a row."


class EmptyClientError(DataError):
    """A client has too few rows for training and testing."""

    exit_code = 7
    help = "Use fewer clients or another partition, or raise partition.min_rows to leave such clients out."


class SingleClassError(DataError):
    """The labels have only one class, so there is nothing to learn."""

    exit_code = 8
    help = "Check data.label and data.positive: at least two classes are needed."


class ModelError(ShoalError):
    """The model cannot be built, or does not fit the data or the task."""

    exit_code = 9
    help = "Compare the model's input and output shapes with what the message expects."


class TrainingError(ShoalError):
    """Training failed."""

    exit_code = 10
    help = "The run folder holds all results up to the last completed round."


class NonFiniteError(TrainingError):
    """A loss or an update contains NaN or infinity."""

    exit_code = 11
    help = "Lower training.learning_rate, scale the inputs, or clip (training.optimizer_args.clipnorm)."

    @classmethod
    def after_training(cls, loss: float, steps: int, learning_rate: float) -> NonFiniteError:
        """Return the error for local training that diverged."""
        return cls(
            f"local training reached a loss of {loss} after {steps} steps with learning rate "
            f"{learning_rate:g}; expected a finite loss and finite weights",
            hint="lower training.learning_rate, or set training.optimizer_args.clipnorm",
        )

    @classmethod
    def after_update(cls) -> NonFiniteError:
        """Return the error for an update that its compressed type cannot represent."""
        return cls(
            "the update contains values above 65,504, the largest float16 number",
            hint='set update.clip_norm, lower training.learning_rate, or use update.compress = "int8"',
        )

    @classmethod
    def forged(cls) -> NonFiniteError:
        """Return the error for a malicious client's update that the model's dtype cannot represent."""
        return cls("the forged update is not finite", hint="use smaller values in attack.args")


class TooFewRepliesError(TrainingError):
    """Fewer clients replied than server.min_success requires, so the round was not applied."""

    exit_code = 12
    help = "The message lists the failures. Lower server.min_success only if the others represent all."


class WorkerError(ShoalError):
    """A worker process could not be started, or died more often than allowed."""

    exit_code = 13
    help = "Use fewer workers or a smaller model; the run's log.txt has the worker's last output."


class DisclosureError(ShoalError):
    """A client's message contained something that is not on the list of what it may send."""

    exit_code = 14
    help = "docs/messages.md lists what each type of message may hold."


class BudgetError(ShoalError):
    """The privacy budget does not allow the request."""

    exit_code = 19
    help = "docs/privacy.md explains what spends the budget: rounds, noise, sampling and statistics."


class RunError(ShoalError):
    """A run folder is missing, damaged or unsuitable."""

    exit_code = 15
    help = "`shoal list` shows all runs."


class CheckpointError(RunError):
    """A checkpoint cannot be written, or there is no usable checkpoint to resume from."""

    exit_code = 16
    help = "docs/reliability.md explains what a checkpoint holds and when it is refused."


class StorageError(RunError):
    """A file of a run cannot be written: the disk is full or has failed."""

    exit_code = 18
    help = "Everything written before is kept. Free space or repair the disk, then run `shoal resume RUN`."


class IntegrityError(RunError):
    """A log or a bundle was changed, or is not signed with the expected key."""

    exit_code = 24
    help = "docs/handover.md explains what each check proves. Ask the other side for its copy and compare."


class TransportError(ShoalError):
    """Server and client cannot communicate, or one of them broke the protocol."""

    exit_code = 17
    help = "docs/transport.md explains what each side needs, and what each side checks."


class MessageError(TransportError):
    """A request holds a record or key that its type does not have, lacks one, or has a value out of range."""

    exit_code = 20
    help = "Run the same version of shoal on both sides; docs/messages.md lists what each request holds."


class FrozenWeightsError(MessageError):
    """A client lacks the frozen weights whose hash a request names; the server then sends them."""

    exit_code = 21
    help = "The server sends frozen weights to a site that lacks them; see docs/messages.md."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to `name` in spelling, or `None` if none is near."""
    by_lower = {item.lower(): item for item in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name: the nearest known name, and all known names."""
    names = sorted(known)
    near = nearest(name, names)
    guess = f' Did you mean "{near}"?' if near else ""
    return f'unknown {what} "{name}".{guess} Known: {", ".join(names)}'
