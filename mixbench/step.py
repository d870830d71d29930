"""One update of what a task trains, `Step`, and how fast it learns at which moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mixbench.learning import Group
from mixbench.spec import Run


class Learner(Protocol):
    """What is updated.

    Attributes:
        groups: all that the optimiser updates.
    """

    groups: Sequence[Group]

    def loss(self, prepared: Any) -> Tensor:
        """A scalar to minimise."""
        ...


class Step:
    """One update of what a task trains, in each of its groups: forward, backward, SGD.

    Where there is nothing to update, it is the task's own step alone.

    Attributes:
        learns: whether there is anything to update.
    """

    def __init__(self, run: Run, task: Learner) -> None:
        self._task = task
        self.learns = any(parameters for _, parameters in task.groups)
        self._protocols = [protocol for protocol, _ in task.groups]
        groups = [
            {
                "params": parameters,
                "momentum": protocol.momentum,
                "nesterov": protocol.nesterov,
                "weight_decay": protocol.weight_decay,
            }
            for protocol, parameters in task.groups
        ]
        self.optimiser = torch.optim.SGD(groups, lr=run.lr, fused=True)

    def __call__(self, prepared: Any, epoch: float) -> Tensor:
        """Update once at a moment, see `lr_at`; the loss before the update, a scalar on the device."""
        for group, protocol in zip(self.optimiser.param_groups, self._protocols, strict=True):
            group["lr"] = lr_at(protocol, epoch)
        return self.update(prepared)

    def update(self, prepared: Any) -> Tensor:
        """Update once at the rates that are set; the loss before the update."""
        loss = self.loss(prepared)
        if self.learns:
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
        return loss.detach()

    def loss(self, prepared: Any) -> Tensor:
        """What is minimised, a scalar."""
        return self._task.loss(prepared)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the optimiser's saved state, whichever memory layout it was saved in."""
        self.optimiser.load_state_dict(state)
        # A fused step takes numbers in the order in which they lie: momenta are to lie as their weights do.
        for parameter, values in self.optimiser.state.items():
            for name, value in values.items():
                values[name] = torch.empty_like(parameter).copy_(value)


def lr_at(run: Run, epoch: float) -> float:
    """The learning rate at a moment, in epochs from the start (3.5: half-way through the fourth).

    The warm-up rises linearly to ``lr`` over its epochs; the cosine then falls to ``lr_end`` over the rest.
    A milestone m takes effect with the first step of epoch m, counted from 0.
    """
    if epoch < run.warmup:
        return run.lr * epoch / run.warmup
    if run.schedule == "step":
        return run.lr * run.lr_drop ** sum(epoch >= milestone for milestone in run.milestones)
    if run.schedule == "cosine":
        done = (epoch - run.warmup) / (run.epochs - run.warmup)
        return run.lr_end + (run.lr - run.lr_end) * (1 + math.cos(math.pi * done)) / 2
    return run.lr
