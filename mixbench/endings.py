"""How an attempt at a run may end: the errors, and what they mean for the next one."""

from __future__ import annotations

import re

from mixbench import files

DEVICE = re.compile(
    r"uncorrectable ECC|no CUDA-capable device|CUDA driver|devices? unavailable|busy or unavailable|NCCL|fallen off",
    re.IGNORECASE,
)
"""What torch says when a machine is at fault: its GPU or driver, or the way to other ones."""


class StoppedError(Exception):
    """A signal asked the run to stop; its state is saved."""


class TimeOverError(StoppedError):
    """There is no time for another step and a save; the state is saved."""


class FencedError(Exception):
    """A newer attempt has taken over: this one must not write anything any more."""


class CrashLoopError(RuntimeError):
    """A run was tried again and again, and never got any further."""


class MissingNeedError(RuntimeError):
    """What a run needs has not finished, or is damaged."""


class OtherDataError(ValueError):
    """A run was begun on other data than those at hand."""


class OtherCodeError(RuntimeError):
    """A run cannot be done as it was meant where it was to be: its code has changed, or there is no GPU."""


class TeamError(RuntimeError):
    """Another process that trains the run failed.

    Attributes:
        retryable: whether the run may simply be run again.
    """

    def __init__(self, text: str, *, retryable: bool) -> None:
        super().__init__(text)
        self.retryable = retryable


def sentence(error: BaseException) -> str:
    """What went wrong, for the user: a `ValueError` is a sentence itself, and so is what another process says."""
    return str(error) if isinstance(error, ValueError | TeamError) else f"{type(error).__name__}: {error}"


def is_retryable(error: BaseException) -> bool:
    """Whether a failed run may simply be run again: the disk, the data or what it needs were at fault, not the work."""
    if isinstance(error, OtherDataError | OtherCodeError | MissingNeedError):
        return True
    if isinstance(error, TeamError):
        return error.retryable
    if isinstance(error, ImportError) or (isinstance(error, RuntimeError) and DEVICE.search(str(error))):
        return True
    return isinstance(error, OSError) and error.errno in files.DISK_ERRORS
