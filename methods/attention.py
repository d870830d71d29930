"""What AutoMix makes masks of: features of a stage, and a block of attention between those of two images."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from methods.base import Network
from methods.ops import unhalved
from methods.saliency import eval_mode


class MaskBlock(nn.Module):
    """Attention of an image's positions to those of its partner, whose values say how much is shown of that.

    Args:
        channels: of the features.
        lam_concat: whether a constant channel says how much of an image there should be.
    """

    def __init__(self, channels: int, *, lam_concat: bool) -> None:
        super().__init__()
        self.lam_concat = lam_concat
        self.query = nn.Conv2d(channels + lam_concat, channels // 2, 1)
        self.value = nn.Conv2d(channels + lam_concat, 1, 1)
        for layer in (self.query, self.value):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast("Tensor", layer.bias))

    def forward(self, own: Tensor, other: Tensor, lam: float) -> Tensor:
        """Logits of showing the other image, (N, 1, h, w), by features of both, (N, D, h, w) float32."""
        with unhalved(own):  # whose bfloat16 is too coarse for a softmax over places
            return self._logits(own, other, lam)

    def _logits(self, own: Tensor, other: Tensor, lam: float) -> Tensor:
        if self.lam_concat:
            own, other = (
                torch.cat([one, one.new_full((len(one), 1, *one.shape[2:]), weight)], 1)
                for one, weight in ((own, lam), (other, 1 - lam))
            )
        # Queries and keys are made by the same layer.
        query, key, value = (made.flatten(2) for made in (self.query(own), self.query(other), self.value(other)))
        attention = (query.transpose(1, 2) @ key / math.sqrt(query.shape[1])).softmax(2)
        logits: Tensor = attention @ value.transpose(1, 2)
        return logits.reshape(-1, 1, *own.shape[2:])


class Headed(nn.Module):
    """A network with another last layer."""

    def __init__(self, net: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self._net = net
        self._head = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N, G) float32, of images in [0, 1]."""
        features: Tensor = cast("Network", self._net).features(x)
        return cast("Tensor", self._head(features.float().mean((2, 3))))


def stage_features(net: nn.Module, stage: str, x: Tensor) -> Tensor:
    """What a stage puts out when the network looks at images, (N, D, h, w)."""
    seen: list[Tensor] = []
    handle = net.get_submodule(stage).register_forward_hook(lambda *passed: seen.append(passed[-1]))
    try:
        cast("Network", net).features(x)
    finally:
        handle.remove()
    return seen[0]


def stage_named(net: nn.Module, layer: int) -> str:
    """The name of a stage by its number from 1; of the last but one by 0.

    Raises:
        ValueError: there is no such stage.
    """
    count = sum(name.removeprefix("layer").isdigit() for name, _ in net.named_children())
    if not count:
        raise ValueError(f"the {type(net).__name__} has no stages that are called layer1, layer2, ...; take another")
    if not 0 <= layer <= count:
        raise ValueError(f"layer is {layer}, but the network has the stages 1 to {count}; take one of them, or 0")
    return f"layer{layer or max(count - 1, 1)}"


@torch.no_grad()
def channels_of(net: nn.Module, stage: str, image_size: int) -> int:
    """Channels of what a stage puts out when it looks at images of this side."""
    mean = cast("Network", net).mean
    with eval_mode(cast("Network", net)):
        seen = stage_features(net, stage, mean.expand(1, -1, image_size, image_size))
    return seen.shape[1]
