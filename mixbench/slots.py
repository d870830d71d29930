"""A place for one run at a time, `Slot`, and the processes in it."""

from __future__ import annotations

import selectors
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mixbench import devices
from mixbench.process import Worker, WorkerProcess
from mixbench.spec import Run

Others = Callable[[Mapping[str, str], int], Sequence[Worker]]
"""Starts all processes but the first of a run of so many, in a slot's environment."""


class NotComeError(RuntimeError):
    """The other processes of a run did not come."""


class Slot:
    """A place for one run at a time: the process that executes it, and others that train along where it has several.

    Attributes:
        run: what is executed; None: nothing is.
        worker: the process, where there is one.
        others: those that train along.

    Args:
        environment: what is its own: GPUs, number of threads.
        selector: where its processes are listened to; an entry's data are to be called when there is something.
    """

    def __init__(self, environment: Mapping[str, str], selector: selectors.BaseSelector) -> None:
        self.run: Run | None = None
        self.worker: WorkerProcess | None = None
        self.others: list[Worker] = []
        self._environment = environment
        self._selector = selector
        self._job: Mapping[str, Any] = {}

    def start(self, run: Run, job: Mapping[str, Any], hear: Callable[[], None]) -> None:
        """Have the process execute a run; ``hear`` is called when it has told something."""
        if self.worker is None:
            self.worker = WorkerProcess(devices.own(self._environment, 0))
            self._selector.register(self.worker.told, selectors.EVENT_READ, hear)
        self.run, self._job = run, job
        self.worker.give(job)

    def send(self, others: Others, count: int, meeting: Sequence[Any], overhear: Callable[[Worker], None]) -> None:
        """The run is claimed, and its first process waits for the others at the meeting.

        Raises:
            NotComeError: they did not come.
        """
        self.others = list(others(self._environment, count))
        for rank, other in enumerate(self.others, 1):
            self._selector.register(other.told, selectors.EVENT_READ, partial(overhear, other))
            other.give({**self._job, "member": {"rank": rank, "of": count, "meeting": list(meeting)}})

    def dismiss(self, other: Worker) -> None:
        """End one that trains along. It has nothing to save: what is to be kept is with the first process."""
        self.others.remove(other)
        self._selector.unregister(other.told)
        other.signal(signal.SIGKILL)
        other.close()

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        if self.worker is not None:
            self.worker.signal(number)

    def close(self) -> int:
        """End the process, which saves, and then the others; the first one's exit code."""
        worker, self.worker = self.worker, None
        if worker is None:
            return 0
        self._selector.unregister(worker.told)
        code = worker.close()
        for other in list(self.others):
            self.dismiss(other)
        return code
