"""What this machine offers: the slots of the local queue, each with a GPU or a core of its own. Without torch."""

from __future__ import annotations

import os
import subprocess


def environments(device: str, slots: int | None, threads: int) -> list[dict[str, str]]:
    """What is each slot's own: a GPU by turns, or on the CPU a core with its number of threads.

    By default there is one slot per GPU, and on the CPU as many as cores / threads.
    """
    own = {"OMP_NUM_THREADS": str(threads)}
    if not device.startswith("cuda"):
        return [own] * (slots or max(1, cores() // threads))
    gpus = visible_gpus()
    return [own | {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(slots or len(gpus))]


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where there is no driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]  # others are their MIG parts
    return [str(number) for number, _ in enumerate(gpus)]
