"""A worker process, as the launcher sees it: jobs go in, events come out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import IO, Any, Protocol, cast

from mixbench import devices, signals

SAVE_SECONDS = 60.0
"""How long a run that is to stop may take to save before it is killed."""

KEEPING_MEMORY: Mapping[str, str] = MappingProxyType(
    {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
)
"""An environment in which glibc hands freed memory out again, instead of giving it back and having it cleared anew.

On the CPU that is a tenth of a small network's step, and half of mixing with a map that is kept.
"""


class Worker(Protocol):
    """A process that is given a job and tells what comes of it, wherever it runs."""

    @property
    def told(self) -> IO[bytes]:
        """Where it tells what happens, a file with a descriptor; readable when there is something to hear."""
        ...

    def give(self, job: Mapping[str, Any]) -> None:
        """Hand it a job."""
        ...

    def events(self) -> list[dict[str, Any]] | None:
        """What it has told since the last call; waits until there is something. None once it has ended."""
        ...

    def signal(self, number: int) -> None:
        """Send it a signal."""
        ...

    def close(self) -> int:
        """Have it end, by force after a while; its exit code, negative for a signal."""
        ...


class Teller:
    """What tells events, each a line of JSON.

    Attributes:
        told: where it tells them; readable when there is something to hear.
    """

    def __init__(self, told: IO[bytes]) -> None:
        self.told = told
        self._rest = b""

    def events(self) -> list[dict[str, Any]] | None:
        """What it has told since the last call; waits until there is something. None once it has ended."""
        try:
            heard = os.read(self.told.fileno(), 1 << 16)
        except ConnectionError:  # of another machine, whose end was no farewell
            heard = b""
        *lines, self._rest = (self._rest + heard).split(b"\n")
        return [json.loads(line) for line in lines] if heard else None


class WorkerProcess(Teller):
    """``python -m mixbench.worker``, started; it tells on a pipe."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        with signals.held():
            # In a session of its own: Ctrl-C reaches the launcher alone, which then asks.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mixbench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**KEEPING_MEMORY, **os.environ, **environment},
                start_new_session=True,
            )
        self._jobs = cast("IO[bytes]", self._process.stdin)
        super().__init__(cast("IO[bytes]", self._process.stdout))

    def give(self, job: Mapping[str, Any]) -> None:
        """Hand it a job."""
        with contextlib.suppress(BrokenPipeError):  # it just died: its events will end, and say so
            self._jobs.write(json.dumps(job).encode() + b"\n")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close(self) -> int:
        """Have it save what it is at and end, by force after a while; its exit code, negative for a signal."""
        self._process.terminate()
        for pipe in (self._jobs, self.told):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            return self._process.wait(timeout=SAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def others(environment: Mapping[str, str], count: int) -> Sequence[WorkerProcess]:
    """All processes but the first of a run of so many, started; each has a GPU of its own in a slot's environment."""
    return [WorkerProcess(devices.own(environment, rank)) for rank in range(1, count)]
