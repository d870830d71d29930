"""The signals that ask a process to stop: how they are heard, and how they wait for somebody who hears them."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = frozenset({signal.SIGTERM, signal.SIGUSR2})
"""What asks a process that works to save and end: a launcher, a cluster that takes a job away, or one that warns."""


@contextmanager
def held(numbers: Collection[int] = STOPS) -> Iterator[None]:
    """Inside, nobody hears these signals; they are heard on the way out.

    A process that is started inside is born deaf to them, so that none can kill it before it is ready: what is sent
    meanwhile reaches it when it calls `heed`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def put_off(numbers: Collection[int]) -> Iterator[None]:
    """As `held`, where there are other threads, torch's: the system gives them what the main thread holds back.

    Nothing is lost, and nothing is done about it before the way out.
    """
    heard: list[int] = []
    try:
        with held(numbers):
            handlers = {number: signal.signal(number, lambda number, _: heard.append(number)) for number in numbers}
            try:
                yield
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
    finally:
        for number in heard:
            signal.raise_signal(number)


def heed() -> None:
    """Hear `STOPS` from now on, those too that came before; handlers must stand."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def leave_to_the_parent() -> None:
    """Ignore `STOPS`: a cluster sends them to every process of a job, also to those that only serve one of them."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


class Stop:
    """Remembers which signals asked this process to stop; who works looks at it between two steps.

    Attributes:
        heard: in order.

    Args:
        numbers: the signals.
        insistent: those of them that mean force when they come twice.
    """

    def __init__(self, numbers: Collection[int], *, insistent: Collection[int] = ()) -> None:
        self._numbers = numbers
        self._insistent = insistent
        self._pid = os.getpid()
        self.heard: list[int] = []

    @property
    def asked(self) -> bool:
        """Whether any came."""
        return bool(self.heard)

    @property
    def insists(self) -> bool:
        """Whether somebody lost patience."""
        return sum(number in self._insistent for number in self.heard) > 1

    def listen(self) -> None:
        """Hear them from now on, those too that were held back."""
        for number in self._numbers:
            signal.signal(number, self.hear)
        heed()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear them while inside."""
        before = {number: signal.getsignal(number) for number in self._numbers}
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hear(self, number: int, frame: FrameType | None = None) -> None:  # noqa: ARG002
        """Remember, no more: the signal may have come in the middle of anything. A forked child is not meant."""
        if os.getpid() == self._pid:
            self.heard.append(number)
