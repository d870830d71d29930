"""Residual networks for small images (He et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from methods.ops import rectified
from mixbench.nets.base import Classifier, Problem, convolution

Shortcut = Callable[[int, int, int], nn.Module]
"""(channels in, channels out, stride) -> what carries a block's input around it."""


class Subsample(nn.Module):
    """A shortcut without weights (option A): every second pixel, new channels of zeros evenly on both sides.

    Which side the zeros are on is not in the paper; both, as in akamaster/pytorch_resnet_cifar10's resnet.py.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self._stride = stride
        self._zeros = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        # As a pooling of single pixels: the gradient of x[..., ::2, ::2] is contiguous, whatever the layout of x, and
        # then slow wherever it meets another.
        return F.pad(F.avg_pool2d(x, 1, self._stride), (0, 0, 0, 0, self._zeros, self._zeros))


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A shortcut with weights (option B): a 1x1 convolution with batch normalisation."""
    return nn.Sequential(convolution(inputs, outputs, size=1, stride=stride), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them, which is the identity where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = convolution(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        out = rectified(self.bn1(self.conv1(x)))
        return rectified(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(Classifier):
    """A 3x3 convolution, then stages ``layer1``, ``layer2``, ... of blocks; each after the first halves the image.

    Args:
        problem: classes and images.
        widths: channels of each stage.
        blocks: blocks in each stage.
        shortcut: what goes around a block that changes the shape.
    """

    def __init__(self, problem: Problem, *, widths: Sequence[int], blocks: int, shortcut: Shortcut) -> None:
        super().__init__(problem, width=widths[-1], stride=2 ** (len(widths) - 1))
        self.conv1 = convolution(problem.channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self._layers = [f"layer{number}" for number in range(1, len(widths) + 1)]
        for name, (inputs, outputs) in zip(self._layers, pairwise([widths[0], *widths]), strict=True):
            first = Block(inputs, outputs, 1 if name == "layer1" else 2, shortcut)
            rest = [Block(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)]
            self.add_module(name, nn.Sequential(first, *rest))

    def stages(self, x: Tensor) -> Tensor:
        """Last feature map, (N, D, h, w), of normalised images."""
        out: Tensor = rectified(self.bn1(self.conv1(x)))
        for name in self._layers:
            out = self.get_submodule(name)(out)
        return out


def resnet8(problem: Problem) -> ResNet:
    """ResNet-8 as for CIFAR-10: ResNet-20 with one block a stage; 75 k weights."""
    return ResNet(problem, widths=(16, 32, 64), blocks=1, shortcut=Subsample)


def resnet20(problem: Problem) -> ResNet:
    """ResNet-20 of section 4.2, with shortcuts of option A; 0.27 M weights."""
    return ResNet(problem, widths=(16, 32, 64), blocks=3, shortcut=Subsample)


def resnet18(problem: Problem) -> ResNet:
    """ResNet-18 in its CIFAR form: a 3x3 convolution instead of the 7x7 and the pooling; 11.17 M weights."""
    return ResNet(problem, widths=(64, 128, 256, 512), blocks=2, shortcut=projection)
