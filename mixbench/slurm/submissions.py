"""What was handed to SLURM: one folder a submission, with an intent that is written before, and settled after."""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mixbench import files
from mixbench.execution import Execution
from mixbench.grid import Sweep
from mixbench.slurm import LockedError
from mixbench.spec import Run

SCHEMA = 1

PREFIX = "mb-"
"""The names of our jobs begin so."""

LIVE = ("intent", "submitted")
"""States of a submission of which something may be in flight."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One job array: what it is to compute, and how.

    Attributes:
        id: names its folder, and with ``mb-`` before it its job. Numbers of jobs may come again, this does not.
        sweep: the name of the sweep that it is of.
        state: intent: it is about to be handed over, or was, and nobody could say so; submitted; over: nothing of it is
            in the queue any more; abandoned: it never came there.
        runs: what it is to compute, by their ids, as `Run.to_dict` writes them.
        tasks: the runs of each task of the array by their ids, in the order in which they are done.
        execution: how, see `mixbench.execution.Execution`.
        own: what of that is otherwise for single runs, by their ids.
        slots: runs at a time in a task.
        processes: that share a run, each a task of the job's step.
        minutes: of a task; None where nobody says.
        code: the copy of the code that it runs, see `mixbench.slurm.snapshot`.
        mixers: marks of the code of mixers that are not in that copy.
        host, user, cluster: who handed it over, and to which cluster.
        time: when, by the clock of that host; to have an order, no more.
        command: that did.
        job: the array's number; "" before it is known.
    """

    id: str
    sweep: str
    state: str = "intent"
    runs: Mapping[str, Mapping[str, Any]]
    tasks: Sequence[Sequence[str]]
    execution: Mapping[str, Any]
    own: Mapping[str, Mapping[str, Any]]
    slots: int
    processes: int
    minutes: float | None
    code: str
    mixers: Mapping[str, str]
    host: str = field(default_factory=socket.gethostname)
    user: str = field(default_factory=getpass.getuser)
    time: float = field(default_factory=time.time)
    cluster: str = ""
    command: str = ""
    job: str = ""

    @property
    def name(self) -> str:
        """Of its job."""
        return f"{PREFIX}{self.id}"

    def runs_of(self, index: int) -> list[Run]:
        """Those of one of its tasks."""
        return [Run.from_dict(self.runs[run]) for run in self.tasks[index]]

    def execution_of(self, run: Run) -> Execution:
        """How one of its runs is computed."""
        return Execution(**{**self.execution, **self.own.get(run.id, {})})


class Submissions:
    """Those of a results folder: the only one that knows a path below its ``sweeps``."""

    def __init__(self, results: Path) -> None:
        self.root = results / "sweeps"

    def folder(self, submission: Submission) -> Path:
        """Where a submission's record, script and logs are."""
        return self.root / submission.sweep / "subs" / submission.id

    def all(self) -> list[Submission]:
        """Every one that was ever recorded and can be read."""
        return [read(path.parent) for path in sorted(self.root.glob("*/subs/*/submission.json"))]

    def live(self) -> list[Submission]:
        """Those of which something may be in flight."""
        return [one for one in self.all() if one.state in LIVE]

    def log(self, submission: Submission, index: int) -> Path:
        """Where the output of one of its tasks is."""
        return self.folder(submission) / f"{submission.job}_{index}_0_log.out"

    def write(self, submission: Submission) -> None:
        """Record a submission, or its new state, whole and on disk."""
        payload = {"schema": SCHEMA} | asdict(submission)
        files.write(self.folder(submission) / "submission.json", files.encode(payload))

    def settle(self, submission: Submission, state: str, job: str = "") -> Submission:
        """Record what became of it."""
        settled = replace(submission, state=state, job=job or submission.job)
        self.write(settled)
        return settled

    def age(self, submission: Submission) -> float:
        """Seconds since its record was written, on the clock of the file system alone."""
        path = self.folder(submission) / "submission.json"
        return files.now(self.root) - path.stat().st_mtime

    def cancel(self, submission: Submission) -> None:
        """Say that nothing of it may begin any more."""
        files.publish(self.folder(submission) / "cancelled", b"")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other launcher submits from this machine: it is only a courtesy, claims make doubles harmless.

        Raises:
            LockedError: one does; says who.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "launch.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):  # a file server that has no locks: go on
                    yield
                    return
                file.seek(0)
                who = file.read().strip() or "another launcher"
                raise LockedError(
                    f"{who} is submitting to SLURM from {self.root.parent}; try again in a moment"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} of {getpass.getuser()} on {socket.gethostname()}")
            file.flush()
            yield


def read(folder: Path) -> Submission:
    """The submission whose folder this is.

    Raises:
        mixbench.files.DamagedError: its record is damaged; names it.
        ValueError: there is none, or another version of mixbench wrote it.
    """
    path = folder / "submission.json"
    payload = files.read(path)
    try:
        if payload is not None and payload.pop("schema") == SCHEMA:
            return Submission(**payload)
    except TypeError:
        pass
    raise ValueError(
        f"{path} is no submission that this version of mixbench could read; if squeue shows no job "
        f"{PREFIX}{folder.name}, delete that folder"
    )


def is_cancelled(folder: Path) -> bool:
    """Whether a submission, whose folder this is, was cancelled: its workers ask before each run."""
    return any(entry.name == "cancelled" for entry in folder.iterdir())  # listed: a file server may remember a miss


def name_of(sweep: Sweep) -> str:
    """What a sweep is called in its results folder."""
    return f"mini-{sweep.name}" if sweep.mini else sweep.name


def is_ours(job: Mapping[str, Any]) -> bool:
    """Whether an attempt was in a job that was handed over here, and not in an allocation of somebody's own."""
    return str(job.get("name", "")).startswith(PREFIX)


def new_id() -> str:
    """A name that no other submission has."""
    return f"{time.strftime('%m%d')}-{secrets.token_hex(4)}"
