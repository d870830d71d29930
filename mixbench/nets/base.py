"""What all networks share: the normalisation at the front and the classifier at the back."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a network is made for; see `mixbench.nets.build`."""

    classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: str


class Classifier(nn.Module):
    """A `methods.base.Network` but for its `stages`.

    Its passes, and nothing around them, run in the problem's precision: with bfloat16, weights, normalisation and
    logits stay float32, and so do labels, warps, blends and losses outside.

    Args:
        problem: classes and images.
        width: channels of the last feature map.
        stride: how many times smaller than the image that map is.

    Raises:
        ValueError: the last feature map would be a single pixel, which says nothing of where things are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, problem: Problem, *, width: int, stride: int) -> None:
        super().__init__()
        if problem.image_size < 2 * stride:
            raise ValueError(f"image_size is {problem.image_size}, but this network needs {2 * stride} pixels or more")
        # Not in the state dict: they belong to the data, and weights may come from other data.
        for name, values in (("mean", problem.mean), ("std", problem.std)):
            constants = torch.tensor(values).expand(problem.channels).reshape(1, -1, 1, 1).clone()
            self.register_buffer(name, constants, persistent=False)
        self.fc = nn.Linear(width, problem.classes)
        self._half = problem.precision == "bfloat16"

    def normalised(self, x: Tensor) -> Tensor:
        """Images in [0, 1] with mean 0 and standard deviation 1 in each channel, over the data set."""
        # (x - mean) / std as a batch normalisation: one pass over the images, a quarter of the time or a half (CPU).
        return F.batch_norm(x, self.mean.flatten(), self.std.flatten().square(), eps=0.0)

    def stages(self, x: Tensor) -> Tensor:
        """Last feature map, (N, D, h, w), of normalised images."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """Last feature map, (N, D, h, w), of images in [0, 1]."""
        normalised = self.normalised(x)
        with self._precision(x):
            return self.stages(normalised)

    def classify(self, features: Tensor) -> Tensor:
        """Logits, (N, G) float32, of a feature map: global average pooling, then `fc`."""
        with self._precision(features):
            return cast("Tensor", self.fc(features.mean((2, 3)))).float()

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N, G) float32, of images in [0, 1]."""
        return self.classify(self.features(x))

    def _precision(self, x: Tensor) -> AbstractContextManager[object]:
        return torch.autocast(x.device.type, torch.bfloat16) if self._half else nullcontext()


def stem_stride(problem: Problem) -> int:
    """Stride of the first convolution of Kim et al.'s (2020) networks: 1 for 32 pixels, 2 for 64.

    Their code knows these two sizes only. That 2 holds from 64 pixels on, and 1 below, is ours.
    """
    return 2 if problem.image_size >= 64 else 1


def convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the image's size up to ``stride``, without bias: batch normalisation follows.

    Its first weights are He et al.'s (2015) normal ones by the fan out, as in fb.resnet.torch's models/resnet.lua and
    torchvision's resnet.py.
    """
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
