"""Runs of several processes in a job: its first task leads, the others lend it the processes that train along.

A task is where the cluster gives a GPU and cores to a process; which run is next only the first one knows. So the
others come to it, over a socket, and do what they are told: each message is a line of JSON, as for any worker.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import selectors
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from mixbench import devices, files, provenance
from mixbench.process import Teller, WorkerProcess
from mixbench.signals import Stop
from mixbench.slots import NotComeError

JOINING_SECONDS = 300.0
"""How long tasks of a job wait for each other: a cluster may start them minutes apart."""

POLL_SECONDS = 0.2


class LentProcess(Teller):
    """A process in another task of the job, as the first one sees it, see `mixbench.process.Worker`."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__(cast("IO[bytes]", line.makefile("rb", buffering=0)))
        self._line = line

    def give(self, job: Mapping[str, Any]) -> None:
        """Hand it a job."""
        self._say({"job": job})

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._say({"signal": number})

    def close(self) -> int:
        """Let it go; its task ends it."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self.told.close()
        self._line.close()
        return 0

    def _say(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it just died: its events will end, and say so
            self._line.sendall(json.dumps(message).encode() + b"\n")


class Lenders:
    """The other tasks of a job, as the first one sees them; a context manager.

    Args:
        folder: of the submission.
        stop: what asks this job to stop, which then waits for them no longer.
    """

    def __init__(self, folder: Path, stop: Stop) -> None:
        self._stop = stop
        self._token = secrets.token_hex(16)
        self._door = socket.create_server(("", 0), backlog=128)
        self._place = folder / _named(provenance.job())
        about = {"host": provenance.address(), "port": self._door.getsockname()[1], "token": self._token}
        files.write(self._place, files.encode(about))

    def __enter__(self) -> Lenders:
        return self

    def __exit__(self, *ending: object) -> None:
        self._door.close()
        files.write(self._place, files.encode({"over": True}))

    def others(self, environment: Mapping[str, str], count: int) -> Sequence[LentProcess]:  # noqa: ARG002
        """Processes in all tasks but the first, of a run of so many.

        Raises:
            NotComeError: not all tasks have come, or a stop was asked for.
        """
        lent: list[LentProcess] = []
        end = time.monotonic() + JOINING_SECONDS
        self._door.settimeout(POLL_SECONDS)
        while len(lent) < count - 1:
            try:
                line, _ = self._door.accept()
            except TimeoutError:
                if time.monotonic() < end and not self._stop.asked:
                    continue
                raise NotComeError(
                    f"of {count} tasks only {len(lent) + 1} came within {JOINING_SECONDS:.0f} s"
                ) from None
            if self._is_ours(line):
                lent.append(LentProcess(line))
        return lent

    def _is_ours(self, line: socket.socket) -> bool:
        """Whether who came is a task of this job: anybody on the network may knock."""
        line.settimeout(10)
        try:
            said = line.recv(len(self._token), socket.MSG_WAITALL)
        except OSError:
            said = b""
        line.settimeout(None)
        known = hmac.compare_digest(said, self._token.encode())
        if not known:
            line.close()
        return known


def lend(folder: Path) -> None:
    """Be one of the other tasks: start a process whenever the first one wants one, until that has ended."""
    path = folder / _named(provenance.job())
    end = time.monotonic() + JOINING_SECONDS
    while time.monotonic() < end:
        about = _found(path)
        if about is not None and "over" in about:
            return
        # Refused, where the file is there: a task that is started anew after a crash finds what the old one wrote.
        with contextlib.suppress(OSError):
            if about is not None:
                with socket.create_connection((about["host"], about["port"]), timeout=JOINING_SECONDS) as line:
                    line.settimeout(None)
                    line.sendall(about["token"].encode())
                    _serve(line)
                    end = time.monotonic() + JOINING_SECONDS
        time.sleep(POLL_SECONDS)


def _serve(line: socket.socket) -> None:
    """Start a process, and pass on what it is told and tells, until one side has ended."""
    worker: WorkerProcess | None = None
    try:
        for message in _messages(line):
            if "job" in message:
                worker = WorkerProcess(_environment(message["job"]["execution"]["threads"]))
                worker.give(message["job"])
                _pass_on(worker, line)
                return
    finally:
        if worker is not None:
            worker.signal(signal.SIGKILL)
            worker.close()


def _pass_on(worker: WorkerProcess, line: socket.socket) -> None:
    """Hand on in both directions; returns when one side has ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(worker.told, selectors.EVENT_READ)
        selector.register(line, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is line:
                    numbers = [message["signal"] for message in _received(line)]
                    if not numbers:
                        return
                    for number in numbers:
                        worker.signal(number)
                else:
                    events = worker.events()
                    if events is None:
                        return
                    line.sendall(b"".join(json.dumps(event).encode() + b"\n" for event in events))


def _messages(line: socket.socket) -> Iterator[dict[str, Any]]:
    """Whole messages, one after the other, until the other side ends."""
    with line.makefile("rb", buffering=0) as file:
        yield from (json.loads(text) for text in file)


def _received(line: socket.socket) -> list[dict[str, Any]]:
    """The messages that are there; none where the other side has ended. They are short, and come whole."""
    try:
        return [json.loads(text) for text in line.recv(1 << 16).splitlines()]
    except ConnectionError:
        return []


def _environment(threads: int) -> dict[str, str]:
    """What is this task's own: its threads, and one of the GPUs that its job has on its node."""
    gpus, place = devices.visible_gpus(), int(os.environ.get("SLURM_LOCALID", 0))
    return {"OMP_NUM_THREADS": str(threads)} | ({devices.VISIBLE: gpus[place % len(gpus)]} if gpus else {})


def _named(job: Mapping[str, Any]) -> str:
    """The file in which the first task says where it is; of each restart another one."""
    return f"lead-{job['id']}-{job['index']}-{job['restarts']}.json"


def _found(path: Path) -> dict[str, Any] | None:
    """What the first task says of where it is; None while it says nothing."""
    listed = any(entry.name == path.name for entry in path.parent.iterdir())  # a miss would be remembered
    return files.read(path) if listed else None
