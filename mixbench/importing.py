"""Networks that somebody else trained, as runs: `Import`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods import Batch
from mixbench.execution import Execution
from mixbench.materials import Weights
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.tasks import Classify

NESTED = ("state_dict", "model")
"""Entries of a checkpoint under which others keep the network's state."""

PARALLEL = "module."
"""What torch's `DataParallel` puts before every name."""

LAST_LAYERS = frozenset({"fc", "linear", "classifier"})
"""What the last layer is called; ours is ``fc``."""


class Import(Classify):
    """Test a network that somebody else trained, and keep it: its one epoch has no steps."""

    def __init__(self, run: Run, streams: Streams, execution: Execution, weights: Weights) -> None:
        super().__init__(run, streams, execution, weights)
        path = execution.checkpoint(run)
        fill(self.net, read(path, run.checkpoint), path=path, model=run.model)
        self.steps = 0

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:  # noqa: ARG002
        """None: nothing is trained."""
        return iter(())


def read(path: Path, checksum: str) -> dict[str, Tensor]:
    """A checkpoint's tensors, under our names as far as only well-known spellings differ; on the CPU.

    Raises:
        ValueError: it is no state dict of tensors, or other bytes than the sweep was planned with.
    """
    data = path.read_bytes()
    if sha256(data).hexdigest() != checksum:
        raise ValueError(f"{path} has changed since the sweep was planned; start the sweep again")
    try:
        saved: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of whatever kind the foreign bytes provoke
        raise ValueError(_no_state(path)) from error
    nested = [saved[name] for name in NESTED if isinstance(saved.get(name), dict)] if isinstance(saved, dict) else []
    state = nested[0] if len(nested) == 1 else saved
    if not _is_state(state):
        raise ValueError(_no_state(path))
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise ValueError(f"{path} holds weights that are no finite numbers: its network diverged; take another")
    return in_our_words(state)


def _is_state(saved: Any) -> bool:
    entries = saved.items() if isinstance(saved, dict) else ()
    return bool(entries) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in entries)


def _no_state(path: Path) -> str:
    return f"{path} holds no state dict of tensors; write one with torch.save(net.state_dict(), ...)"


def in_our_words(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state whose last layer is ``fc``, without the prefix of `DataParallel`; all other names as they are."""
    if all(name.startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): value for name, value in state.items()}
    last = {name.partition(".")[0] for name in state} & LAST_LAYERS
    if len(last) != 1:
        return state
    (called,) = last
    return {f"fc{name.removeprefix(called)}" if name.startswith(f"{called}.") else name: state[name] for name in state}


def fill(net: nn.Module, state: dict[str, Tensor], *, path: Path, model: str) -> None:
    """Put a state into a network, all of it, into all of it.

    Raises:
        ValueError: they do not fit each other; says where.
    """
    try:
        net.load_state_dict(state)
    except RuntimeError:
        raise ValueError(f"{path} does not fit {model}: {_misfit(net.state_dict(), state)}") from None


def _misfit(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> str:
    """In which names and shapes a checkpoint differs from what a network has."""
    unlike = [
        f"{name} has the shape {tuple(theirs[name].shape)} and must have {tuple(ours[name].shape)}"
        for name in ours
        if name in theirs and theirs[name].shape != ours[name].shape
    ]
    missing, unknown = [name for name in ours if name not in theirs], [name for name in theirs if name not in ours]
    parts = (("it lacks ", missing), ("it must not have ", unknown), ("", unlike))
    return "; ".join(before + _few(names) for before, names in parts if names)


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
