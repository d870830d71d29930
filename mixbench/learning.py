"""What learns or moves beside a network in training: mixers with parameters of their own, and a moving average."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from methods import Mixer, Network, TeacherMixer
from mixbench.spec import EMA, Run

Group = tuple[Run, list[nn.Parameter]]
"""Parameters that learn, and the protocol by which: their run, or that with another learning rate, say."""


class Average(nn.Module):
    """A moving average of a network's weights, which begins with its first; batch statistics are the network's own.

    torch's `AveragedModel` brings its count of steps to the device at each, and waits for that.

    Args:
        net: whose weights.
        share: what the average keeps of itself after each step.
    """

    def __init__(self, net: nn.Module, share: float) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).requires_grad_(requires_grad=False)
        self._follow = get_ema_multi_avg_fn(share)  # type: ignore[no-untyped-call]

    def follow(self, net: nn.Module) -> None:
        """Take in the weights after a step."""
        self._follow([*self.net.parameters()], [*net.parameters()], None)
        for ours, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            ours.copy_(theirs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N, G), of images in [0, 1]."""
        return cast("Tensor", self.net(x))


def settled(mixer: Mixer, run: Run, net: nn.Module) -> Mixer:
    """The mixer of a run that trains a network: what a search taught it is only used, all else learns with ``net``.

    Raises:
        ValueError: a network that it has scored is not there, is called as ours are, or cannot stand for ``net``.
    """
    if run.policy is not None:
        mixer.requires_grad_(requires_grad=False)
    there = mixer.scored(cast("Network", net))
    whose = f"the mixer '{run.method}'"
    if EMA in there:
        raise ValueError(f"{whose} scores a network called '{EMA}', as a run's own average is: call it otherwise")
    if mixer.headline and mixer.headline not in there:
        raise ValueError(
            f"{whose} has no network '{mixer.headline}' whose accuracies it says are the run's; its headline must be "
            f"one of those it scores: {', '.join(there) or 'none'}"
        )
    if mixer.headline and _shapes(there[mixer.headline]) != _shapes(net):
        raise ValueError(
            f"{whose} says that its network '{mixer.headline}' counts, but that has other weights than the network in "
            f"training, so no later run could be given it; take another for its headline, or a copy of the network"
        )
    return mixer


def _shapes(net: nn.Module) -> Mapping[str, torch.Size]:
    return {name: value.shape for name, value in net.state_dict().items()}


def groups_of(mixer: Mixer, run: Run) -> list[Group]:
    """The parameters of a mixer that learn: by the run's protocol, or as `Mixer.learns_by` changes it for a part.

    Raises:
        ValueError: it has no such part, or what it says is no protocol.
    """
    groups = []
    rest = {id(parameter): parameter for parameter in mixer.learners()}
    for part, changes in mixer.learns_by.items():
        module = dict(mixer.named_modules()).get(part)
        if module is None:
            raise ValueError(f"the mixer '{run.method}' says how its '{part}' learns, but has no part of that name")
        found = [rest.pop(id(parameter)) for parameter in module.parameters() if id(parameter) in rest]
        nesterov = run.nesterov and changes.get("momentum", run.momentum) > 0
        said: dict[str, Any] = {"nesterov": nesterov, **changes}
        groups.append((replace(run, **said), found))
    return [(protocol, found) for protocol, found in [(run, list(rest.values())), *groups] if found]


def moves(mixer: Mixer) -> bool:
    """Whether a mixer has a state that may change: one that does not learn and has a teacher's has not."""
    return bool(mixer.learners() or (mixer.state_dict() and not isinstance(mixer, TeacherMixer)))
