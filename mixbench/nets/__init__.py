"""The names of all networks. Only `build` imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from torch import nn

MODELS: Mapping[str, str] = {
    "tiny": "mixbench.nets.tiny",
    "resnet8": "mixbench.nets.resnet",
    "resnet20": "mixbench.nets.resnet",
    "resnet18": "mixbench.nets.resnet",
    "preactresnet18": "mixbench.nets.preactresnet",
    "wrn28_10": "mixbench.nets.wide_resnet",
    "resnet50": "mixbench.nets.resnet50",
}
"""Each network's name, which is also that of the function that makes it, and the module of that function."""

SMALLEST: Mapping[str, int] = {
    "tiny": 4,
    "resnet8": 8,
    "resnet20": 8,
    "resnet18": 16,
    "preactresnet18": 16,
    "wrn28_10": 8,
    "resnet50": 64,
}
"""The side, in pixels, of the smallest images whose last feature map is more than one pixel."""

STAGES: Mapping[str, int] = {
    "tiny": 3,
    "resnet8": 3,
    "resnet20": 3,
    "resnet18": 4,
    "preactresnet18": 4,
    "wrn28_10": 3,
    "resnet50": 4,
}
"""How many stages each network has: ``layer1``, ``layer2`` and so on."""


def build(
    name: str,
    *,
    classes: int,
    channels: int,
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    precision: str = "float32",
) -> nn.Module:
    """A network, a `methods.base.Network`, with first weights from torch's global generator.

    Args:
        name: one of `MODELS`.
        classes: number of logits.
        channels: of the images.
        image_size: their side in pixels.
        mean: of each channel, or one number for all, of pixels in [0, 1].
        std: likewise.
        precision: of its passes: ``float32``, or ``bfloat16``, which autocasts them.

    Raises:
        ValueError: there is no such network, or the images are too small for it.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model '{name}'; there are: {', '.join(MODELS)}")
    from mixbench.nets.base import Problem

    make = getattr(import_module(MODELS[name]), name)
    problem = Problem(
        classes=classes, channels=channels, image_size=image_size, mean=mean, std=std, precision=precision
    )
    return cast("nn.Module", make(problem))
