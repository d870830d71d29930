"""``mixbench doctor``: what this cluster can do, what is missing, and what that means for a sweep."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from mixbench import devices
from mixbench.slurm import UnknownError, commands
from mixbench.slurm.site import SIGNAL_DELAY

SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "afs", "cifs", "panfs", "wekafs", "orangefs", "9p")
"""Beginnings of the types of file systems that several hosts may see."""


def report(results: Path) -> Iterator[tuple[str, str]]:
    """What there is to say, each with a mark before it: ``ok``, ``note`` or ``bad``."""
    yield from _folder(results)
    yield from _environment()
    try:
        config, partitions = commands.config(), commands.partitions()
    except UnknownError as error:
        yield "bad", f"the controller cannot be asked: {error}"
        return
    yield (
        "ok",
        f"SLURM {config.get('SLURM_VERSION', '?')}, cluster {config.get('ClusterName', '?')}: the controller answers",
    )
    yield from _settings(config)
    yield from _accounting()
    for name, about in partitions.items():
        yield "ok", _partition(name, about)


def _settings(config: dict[str, str]) -> Iterator[tuple[str, str]]:
    if config.get("JobRequeue") == "1":
        yield "ok", "JobRequeue is 1: jobs may be requeued"
    else:
        yield "note", "JobRequeue is 0: jobs say --requeue for themselves, as ours all do"
    if "preempt_send_user_signal" in config.get("SlurmctldParameters", ""):
        yield "ok", "preempted jobs are warned (preempt_send_user_signal)"
    elif config.get("PreemptType", "preempt/none") != "preempt/none":
        yield "note", "preempted jobs get no warning but TERM: they save on that, and SLURM itself puts them back"
    if config.get("PreemptMode", "OFF").startswith(("CANCEL", "SUSPEND", "GANG")):
        yield "note", f"PreemptMode is {config['PreemptMode']}: preempted jobs are not put back; `mixbench run` goes on"
    yield "ok", f"MaxArraySize is {config.get('MaxArraySize', '?')}: longer arrays are cut"
    kill, message = (commands.reads(config, key, 0) for key in ("KillWait", "MessageTimeout"))
    yield (
        "ok",
        f"KillWait is {kill} s, MessageTimeout {message} s; jobs are warned {SIGNAL_DELAY} s before their time is over",
    )


def _accounting() -> Iterator[tuple[str, str]]:
    try:
        commands.ask("sacct", "--noheader", "--starttime=now")
    except UnknownError:
        yield "note", "sacct cannot be used: nothing depends on it"
        return
    yield "ok", "sacct can be used; nothing depends on it"
    fields = "account,user,qos,maxsubmitjobs,grpsubmitjobs,maxwall"
    try:
        said = commands.ask("sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", f"format={fields}")
    except UnknownError:
        return
    for line in filter(None, said.splitlines()):
        account, _, qos, most, group, wall = (*line.split("|"), "", "", "", "", "")[:6]
        limits = [f"MaxSubmitJobs {most}"] * bool(most) + [f"GrpSubmitJobs {group}"] * bool(group)
        limits += [f"MaxWall {wall}"] * bool(wall)
        yield "ok", f"account {account}, QOS {qos or 'none'}: {', '.join(limits) or 'no limit on submitted jobs'}"


def _partition(name: str, about: dict[str, str]) -> str:
    default = " (default)" if about.get("Default") == "YES" else ""
    grace = about.get("GraceTime", "0")
    return (
        f"partition {name}{default}: at most {about.get('MaxTime')}, {about.get('DefaultTime')} where nobody asks, "
        f"{about.get('TotalNodes')} nodes, preemption {about.get('PreemptMode')}"
        + (f" after {grace} s" if grace != "0" else "")
        + ("" if about.get("State") == "UP" else f", {about.get('State')}")
    )


def _environment() -> Iterator[tuple[str, str]]:
    try:
        subprocess.run(["env", "--block-signal=USR2", "true"], check=True, capture_output=True)
        yield "ok", "env holds signals back until a job hears them"
    except (OSError, subprocess.CalledProcessError):
        yield (
            "note",
            "env knows no --block-signal (coreutils 8.31 does): a job that is warned in its first moments dies",
        )
    gpus = devices.visible_gpus()
    yield "ok", f"GPUs visible on this host: {len(gpus)}" + ("" if gpus else "; jobs ask for theirs")


def _folder(results: Path) -> Iterator[tuple[str, str]]:
    place = next(one for one in (results.absolute(), *results.absolute().parents) if one.exists())
    kind = _file_system(place)
    free = shutil.disk_usage(place).free / 2**30
    shared = kind.startswith(SHARED)
    yield (
        "ok" if shared else "note",
        f"{results} is on {kind}" + ("" if shared else ": do the nodes see the same folder there?"),
    )
    yield "ok" if free > 1 else "bad", f"{free:,.1f} GiB are free there"
    if not os.access(place, os.W_OK):
        yield "bad", f"{place} cannot be written to"


def _file_system(place: Path) -> str:
    """The type of the file system that holds a folder: that of the longest mount point above it."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    above = [(mount[1], mount[2]) for mount in mounts if place.is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[0]), default=("", "an unknown file system"))[1]
