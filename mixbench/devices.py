"""What this machine offers: the slots of the local queue, each with a GPU or a core of its own. Without torch."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Mapping

from mixbench import provenance
from mixbench.execution import Execution

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable that names the GPUs which a process may use."""


def environments(device: str, slots: int | None, threads: int, gpus: int = 1) -> list[dict[str, str]]:
    """What is each slot's own: GPUs by turns, or on the CPU cores with their number of threads.

    By default there are as many slots as the GPUs suffice for, and on the CPU as cores / threads do.

    Args:
        device: as torch names it.
        slots: how many; None: by default.
        threads: of a process.
        gpus: how many processes, each with a GPU or cores of its own, a run has at most; no more than are visible.
    """
    own = {"OMP_NUM_THREADS": str(threads)}
    if not device.startswith("cuda"):
        return [own] * (slots or max(1, cores() // (threads * gpus)))
    visible = visible_gpus()
    by_turns = itertools.cycle(visible)
    each = [list(itertools.islice(by_turns, gpus)) for _ in range(slots or len(visible) // gpus)]
    return [own | {VISIBLE: ",".join(names)} for names in each]


def own(environment: Mapping[str, str], rank: int) -> dict[str, str]:
    """What is a process's own, of those of a run that share a slot's environment: one of its GPUs."""
    if VISIBLE not in environment:
        return dict(environment)
    return {**environment, VISIBLE: environment[VISIBLE].split(",")[rank]}


def choose(asked: str | None) -> str:
    """The device that is meant: what is asked for, else a GPU where there is one.

    Raises:
        ValueError: a GPU is asked for and none is there.
    """
    gpus = visible_gpus() if asked != "cpu" else []
    if asked == "cuda" and not gpus:
        raise ValueError("--device cuda: no GPU is visible here; use --device cpu")
    return "cuda" if gpus else "cpu"


def here() -> str:
    """The `machine` that is measured where nothing else is asked for."""
    return machine(Execution(device=choose(None)))


def machine(execution: Execution) -> str:
    """What a measurement is of: the name of the GPU or processor, and what of its use is not the usual.

    Raises:
        ValueError: the GPU's driver does not say its name.
    """
    on_gpu = execution.device.startswith("cuda")
    unusual = [
        *([f"{execution.threads} threads"] if execution.threads > 1 and not on_gpu else []),
        *([] if execution.channels_last else ["contiguous"]),
        *(["without CUDA graphs"] if on_gpu and not execution.cuda_graph else []),
    ]
    return ", ".join([asked_of_gpu("name") if on_gpu else provenance.processor(), *unusual])


def asked_of_gpu(*fields: str) -> str:
    """What the driver says of the first GPU that this process may use, by the names that ``nvidia-smi`` has for it.

    Raises:
        ValueError: it says nothing.
    """
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", f"--id={visible_gpus()[0]}"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"`{' '.join(query)}` says nothing of the GPU: {error}") from error


def decoders(asked: int | None, processes: int) -> int:
    """How many processes decode the images of each that trains here: what is asked for, or else its share of cores."""
    return max(1, cores() // processes) if asked is None else asked


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where there is no driver."""
    chosen = os.environ.get(VISIBLE)
    if chosen is not None:
        return [name for name in chosen.split(",") if name not in ("", "-1", "NoDevFiles")]  # SLURM's word for none
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]  # others are their MIG parts
    return [str(number) for number, _ in enumerate(gpus)]
