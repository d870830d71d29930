"""What learns or moves beside a network in training: mixers with parameters of their own, and a moving average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from methods import Mixer, Network, TeacherMixer
from mixbench.spec import EMA, Run

Group = tuple[Run, list[nn.Parameter]]
"""Parameters that learn, and the protocol by which: their run, or that with another learning rate, say."""


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


def averaged(net: nn.Module, share: float) -> AveragedModel:
    """A moving average of a network's weights, which begins with those after the first step; statistics are copied."""
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(share))  # type: ignore[no-untyped-call]


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
