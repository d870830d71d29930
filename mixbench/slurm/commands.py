"""What SLURM is asked and told: the only module that calls its commands, but for sbatch."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mixbench.slurm import UnknownError

PATIENCE_SECONDS = 120.0
"""How long a command may take: those of SLURM give up by themselves after some multiples of its MessageTimeout."""

FIELDS = ("%j", "%F", "%K", "%T", "%r", "%N")
"""Of `Task`, as squeue names them."""


@dataclass(frozen=True)
class Task:
    """A task of a job array in the queue, which is in flight as long as it stands there.

    Attributes:
        name: of the job, which no other submission has.
        job: the array's number, which a cluster may give again after a crash.
        index: in the array.
        state: ``PENDING``, ``RUNNING``, ``SUSPENDED`` and so on.
        reason: why it is pending.
        node: where it runs.
    """

    name: str
    job: str
    index: int
    state: str
    reason: str
    node: str


def is_there() -> bool:
    """Whether this machine has SLURM's commands."""
    return shutil.which("squeue") is not None


def tasks() -> list[Task]:
    """Everything of ours in the queue, in one call.

    Raises:
        UnknownError: the queue cannot be read.
    """
    ours = ("--all", f"--user={getpass.getuser()}")  # all: of hidden partitions too
    lines = ask("squeue", *ours, "--noheader", "--array", f"--format={'|'.join(FIELDS)}").splitlines()
    found = (line.split("|") for line in lines if line.count("|") == len(FIELDS) - 1)
    return [Task(name, job, int(index) if index.isdigit() else 0, *others) for name, job, index, *others in found]


def config() -> dict[str, str]:
    """The cluster's settings by name, see ``scontrol show config``.

    Raises:
        UnknownError: they cannot be read.
    """
    lines = ask("scontrol", "show", "config").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def partitions() -> dict[str, dict[str, str]]:
    """The settings of each partition by its name, the default one first.

    Raises:
        UnknownError: they cannot be read.
    """
    lines = ask("scontrol", "--all", "show", "partition", "--oneliner").splitlines()
    found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if line.strip()]
    found.sort(key=lambda one: one.get("Default") != "YES")
    return {one["PartitionName"]: one for one in found}


def cancel(names: Sequence[str]) -> None:
    """Cancel jobs by their names, all of them that can be.

    Raises:
        UnknownError: SLURM could not be told of all.
    """
    refused = ""
    for name in names:
        try:
            ask("scancel", f"--user={getpass.getuser()}", f"--name={name}")
        except UnknownError as error:
            refused = str(error)
    if refused:
        raise UnknownError(f"{refused}; none of them begins another run all the same")


def requeue(job: str, index: int) -> str:
    """Put a running task of ours back into the queue; why that was refused, or ""."""
    try:
        ask("scontrol", "requeue", f"{job}_{index}")
    except UnknownError as error:
        return str(error)
    return ""


def release(tasks: Sequence[Task]) -> str:
    """Let tasks go that are held; why that was refused, or ""."""
    try:
        ask("scontrol", "release", ",".join(f"{task.job}_{task.index}" for task in tasks))
    except UnknownError as error:
        return str(error)
    return ""


def ask(*words: str) -> str:
    """What a command of SLURM answers.

    Raises:
        UnknownError: it is not there, does not answer or refuses; with its own words.
    """
    try:
        with clean_environment():
            done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    except FileNotFoundError:
        raise UnknownError(f"there is no {words[0]} here; is this a host of the cluster?") from None
    except subprocess.TimeoutExpired:
        raise UnknownError(f"SLURM did not answer to {words[0]} for {PATIENCE_SECONDS:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise UnknownError(f"SLURM does not answer to {words[0]}: {said[-1]}")
    return done.stdout


@contextmanager
def clean_environment() -> Iterator[None]:
    """Inside, this process looks as if it were in no job, whose limits would be taken for those of what it submits.

    Nor do settings of the user's hide tasks from us. Where the cluster's settings are stays known.
    """
    kept = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS"}
    theirs = re.compile(r"(SLURM|SBATCH|SRUN|SALLOC|SQUEUE|SCANCEL|SACCT|SCONTROL)_")
    hidden = {name: value for name, value in os.environ.items() if theirs.match(name) and name not in kept}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def minutes(time: str) -> float | None:
    """A time limit as SLURM writes it, ``90``, ``1:30:00``, ``2-12``, in minutes; None where there is no limit.

    Raises:
        ValueError: it is none.
    """
    if time.upper() in ("UNLIMITED", "INFINITE", "NONE"):
        return None
    form = r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<mins>\d+)(?::(?P<secs>\d+))?)?|(?P<rest>\d+(?::\d+){0,2}))"
    found = re.fullmatch(form, time)
    if found is None:
        raise ValueError(f"'{time}' is no time limit; write minutes, hours:minutes:seconds or days-hours")
    if found["days"]:
        days, hours, mins, secs = (int(found[name] or 0) for name in ("days", "hours", "mins", "secs"))
        return 60 * (24 * days + hours) + mins + secs / 60
    parts = [int(part) for part in found["rest"].split(":")]
    units = {1: (1,), 2: (1, 1 / 60), 3: (60, 1, 1 / 60)}[len(parts)]
    return sum(part * unit for part, unit in zip(parts, units, strict=True))


def reads(settings: Mapping[str, str], key: str, default: int) -> int:
    """A number among the cluster's settings; units behind it are left out."""
    found = re.match(r"\d+", settings.get(key, ""))
    return int(found.group()) if found else default
