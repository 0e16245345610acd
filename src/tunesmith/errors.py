"""Errors a user can act on. Each says what is wrong, where, and what to do; each has its exit code.

Only `cli/` catches them, to print them. Anything else that escapes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations


class TunesmithError(Exception):
    """Base of every error we raise on purpose.

    Args:
        message: what is wrong and why it matters, one or two sentences, no trailing remedy.
        place: file, `file:line`, or dotted settings key.
        remedy: what the user can do about it, as an instruction.
    """

    exit_code = 1

    def __init__(self, message: str, *, place: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.remedy = remedy

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return f"{head}\n  remedy: {self.remedy}" if self.remedy else head


class CheckFailed(TunesmithError):
    """A check or a gate said no."""

    exit_code = 1


class ConfigError(TunesmithError):
    """Wrong usage or a wrong setting."""

    exit_code = 2


class DataError(TunesmithError):
    """Something in the data is missing, broken or unusable."""

    exit_code = 3


class StorageError(TunesmithError):
    """A disk, bucket or folder did not do what was asked."""

    exit_code = 4


class ModelError(TunesmithError):
    """A model, tokenizer or adapter cannot be loaded or used, or memory does not suffice."""

    exit_code = 5


class NoCheckpointError(TunesmithError):
    """Checkpoints exist and none verifies."""

    exit_code = 6


class DivergedError(TunesmithError):
    """Training produced a loss or a gradient that is not a number."""

    exit_code = 7


class StoppedError(TunesmithError):
    """Stopped on request; the run can be resumed."""

    exit_code = 75
