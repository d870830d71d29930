"""Where a number comes from: the commit, the versions, the machine."""

from __future__ import annotations

import functools
import os
import platform
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

HIDDEN = "hidden"
"""Stands for the start of a process that is there, but of which the system tells nothing."""


COMMIT = ROOT / "COMMIT"
"""Stands beside a copy of the code, and says of which commit it is."""


@functools.cache
def commit() -> str:
    """The code's commit, ``1f3c9ab``, with a ``+`` where mixers or harness have uncommitted changes.

    Outside a checkout it is the installed version, ``version 0.1.0``.
    """
    if COMMIT.exists():
        return COMMIT.read_text().strip()
    if not (ROOT / ".git").exists():
        return f"version {version('mixbench')}"
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--", "mixbench", "methods")
    except (OSError, subprocess.CalledProcessError):
        return f"version {version('mixbench')}"
    return head + ("+" if changed else "")


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "numpy", "scipy")}


@functools.cache
def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def process(pid: int | None = None) -> dict[str, str | int]:
    """Who a process is: host, boot, process namespace, pid, and when it started (pids are used again).

    ``started`` is empty where the process is not there, and `HIDDEN` where the system does not say.
    """
    pid = os.getpid() if pid is None else pid
    return {"host": socket.gethostname(), "boot": boot(), "pid": pid, "started": _started(pid)}


def job() -> dict[str, Any]:
    """The task of SLURM that this process is part of, how often it was restarted, and what it was given.

    Nothing outside of one.
    """
    said = os.environ
    if "SLURM_JOB_ID" not in said:
        return {}
    return {
        "name": said.get("SLURM_JOB_NAME", ""),
        "id": said.get("SLURM_ARRAY_JOB_ID", said["SLURM_JOB_ID"]),
        "index": int(said.get("SLURM_ARRAY_TASK_ID", 0)),
        "restarts": int(said.get("SLURM_RESTART_COUNT", 0)),
        "node": said.get("SLURMD_NODENAME", ""),
        "gpus": said.get("CUDA_VISIBLE_DEVICES", ""),
    }


def address() -> str:
    """What other machines know this one by; of one whose name leads nowhere, what it knows itself by."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return "127.0.0.1"
    return name


def boot() -> str:
    """The boot and the process namespace: pids may be compared only within both."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Clock ticks between boot and the start of the process; "" where it is dead or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return HIDDEN if _may_exist(pid) else ""
    return "" if stat[0] in "ZX" else stat[19]


def _may_exist(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
