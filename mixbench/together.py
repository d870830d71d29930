"""What a process does that trains a run together with others: its task, its step, and what of its state is its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from mixbench.learning import Group
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.tasks import Curve, Evaluation, Task


class SharedTask(Protocol):
    """A task whose batches several processes share.

    Attributes:
        groups: all that the optimiser updates.
        steps: of an epoch.
    """

    groups: Sequence[Group]
    steps: int

    def loss(self, prepared: Any) -> Tensor:
        """The mean over its part of the batch."""
        ...

    def weight(self, step: int) -> float:
        """By what that counts in a step of an epoch, for the mean of all processes to be that of the batch."""
        ...


class AveragedStep(Step):
    """A step of which every process computes the loss of its part; all take the gradient of the batch's mean.

    Args:
        run, task: as for `mixbench.step.Step`.
    """

    def __init__(self, run: Run, task: SharedTask) -> None:
        super().__init__(run, task)
        self._shared = task
        self._weight = 1.0
        mixer_learns = run.task == "search" or len(task.groups) > 1  # and what a batch did not need has no gradient
        self._averaged = DistributedDataParallel(_Loss(task), find_unused_parameters=mixer_learns)
        if not any(parameter.is_cuda for parameter in self._averaged.parameters()):
            self._averaged.register_comm_hook(None, lambda _, bucket: _averaged_in_order(bucket))

    def __call__(self, prepared: Any, epoch: float) -> Tensor:
        """Update once at a moment; this process's share in the loss before the update: the mean of all is the loss."""
        self._weight = self._shared.weight(round(epoch % 1 * self._shared.steps))
        return super().__call__(prepared, epoch)

    def loss(self, prepared: Any) -> Tensor:
        """The share of this process in the loss of the batch."""
        return cast("Tensor", self._averaged(prepared)) * self._weight


class _Loss(nn.Module):
    """A task's loss as a module that has what learns from it, which is how torch knows whose gradients to average.

    It has no buffers: batch statistics stay each process's own.
    """

    def __init__(self, task: SharedTask) -> None:
        super().__init__()
        self.learning = nn.ParameterList(parameter for _, parameters in task.groups for parameter in parameters)
        self._task = task

    def forward(self, prepared: Any) -> Tensor:
        return self._task.loss(prepared)


def _averaged_in_order(bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """The mean of a bucket's gradients, summed in the order of the processes.

    A ring sums a number in the order that its place in the bucket gives, and after its first step a process fills its
    buckets otherwise: of three or more, a run that goes on would not end as one that was never stopped.
    """
    ours = bucket.buffer().div_(dist.get_world_size())
    theirs = [torch.empty_like(ours) for _ in range(dist.get_world_size())]
    dist.all_gather(theirs, ours)
    mean: torch.futures.Future[Tensor] = torch.futures.Future()
    mean.set_result(functools.reduce(torch.add, theirs))
    return mean


class Unjudged:
    """A task as all processes but the first have it: trained alike, and neither evaluated nor asked what came of it."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def evaluate(self) -> Evaluation:
        """Nothing."""
        return Evaluation({}, {})

    def notes(self, curve: Curve) -> Mapping[str, Any]:  # noqa: ARG002
        """Nothing."""
        return {}

    def weights(self) -> bytes:
        """Nothing."""
        return b""

    def files(self) -> Mapping[str, bytes]:
        """Nothing."""
        return {}


def for_rank(rank: int, task: Task) -> Task:
    """The task as the process of that rank has it: the first one judges."""
    return cast("Task", Unjudged(task)) if rank else task


def own(saved: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """What of a checkpoint the other processes have otherwise: draws, losses, and the statistics of their parts."""
    trainable = _buffers(task.trainable, saved["trainable"])
    beside = {name: _buffers(module, saved["beside"][name]) for name, module in task.beside.items()}
    return {"trainable": trainable, "beside": beside, "streams": saved["streams"], "losses": saved["losses"]}


def seen_by(rank: int, saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """A checkpoint as the process of that rank goes on from it: the first one's state, and in it what is its own."""
    if not rank:
        return saved
    mine = saved["others"][rank - 1]
    beside = {name: {**state, **mine["beside"][name]} for name, state in saved["beside"].items()}
    trainable = {**saved["trainable"], **mine["trainable"]}
    return {**saved, **mine, "trainable": trainable, "beside": beside}


def _buffers(module: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """What of a module's state is no parameter."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in state.items() if name not in parameters}
