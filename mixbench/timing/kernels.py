"""Mixing alone: what a mixer would ask the network in training is known beforehand; imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

FIRST_STAGE = "layer1"
"""What every network that may be asked has, and runs once in a pass, see `methods.base.Network`."""


@dataclass
class Passes:
    """How often networks were asked.

    Attributes:
        own: passes of networks that are the mixer's own: a teacher, or a copy of the network in training.
        net: passes of the network in training.
        whole: calls of the network in training; a pass that is none of these only took features.
    """

    own: int = 0
    net: int = 0
    whole: int = 0


@contextmanager
def watching(mixer: nn.Module, net: nn.Module) -> Iterator[Passes]:
    """Counts the passes that are made inside."""
    found = Passes()

    def count(name: str) -> Callable[..., None]:
        return lambda *_: setattr(found, name, getattr(found, name) + 1)

    own = [module for name, module in mixer.named_modules() if name.rpartition(".")[2] == FIRST_STAGE]
    watched = [*((module, "own") for module in own), (net.get_submodule(FIRST_STAGE), "net"), (net, "whole")]
    hooks = [module.register_forward_pre_hook(count(name)) for module, name in watched]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Answer:
    """What a network answered, and how a loss of that changes with the images.

    Attributes:
        logits: (N, G).
        gradient: (N, C, H, W), by the images; None while nobody has asked for it.
    """

    logits: Tensor
    gradient: Tensor | None = None


class _Noted(torch.autograd.Function):
    """Images on their way into a network: their gradient is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, answers: list[Answer]) -> Tensor:
        ctx.answers = answers
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        ctx.answers[-1].gradient = upstream
        return upstream, None


class _Given(torch.autograd.Function):
    """An answer that is known, and its gradients: nothing is computed on the way forth or back."""

    @staticmethod
    def forward(ctx: Any, answer: Answer, of_weights: Sequence[Tensor], x: Tensor, *weights: Tensor) -> Tensor:  # noqa: ARG004
        ctx.answer, ctx.of_weights = answer, of_weights
        return answer.logits.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ARG004
        return None, None, ctx.answer.gradient, *ctx.of_weights


@contextmanager
def noting(net: nn.Module) -> Iterator[list[Answer]]:
    """Keeps what the network answers inside."""
    answers: list[Answer] = []

    def forward(x: Tensor) -> Tensor:
        noted = cast("Tensor", _Noted.apply(x, answers))
        logits = cast("Tensor", type(net).forward(net, noted))
        answers.append(Answer(logits.detach()))
        return logits

    with _instead(net, forward):
        yield answers


@contextmanager
def giving(net: nn.Module, answer: Answer) -> Iterator[None]:
    """Inside, the network answers this, whatever it is asked; by its weights the gradient is 0."""
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    zeros = [torch.zeros_like(weight) for weight in weights]
    with _instead(net, lambda x: cast("Tensor", _Given.apply(answer, zeros, x, *weights))):
        yield


@contextmanager
def _instead(net: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    net.forward = forward
    try:
        yield
    finally:
        del net.forward
