"""Residual networks that normalise before they convolve (He et al., 2016, Identity Mappings in Deep Residual Networks).

They are as Manifold Mixup and PuzzleMix have them (vikasverma1077/manifold_mixup and snu-mllab/PuzzleMix,
models/preresnet.py), because published figures stand on that: without the normalisation and the ReLU before the pooling
that the paper has, and with torch's own first weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from methods.ops import rectified
from mixbench.nets.base import Classifier, Problem, stem_stride


class Block(nn.Module):
    """Normalisation and ReLU before each of two 3x3 convolutions, and a shortcut around them.

    Where the shape changes, the shortcut is a 1x1 convolution of what the first ReLU puts out, else the input itself.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        active = rectified(self.bn1(x))
        around = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(rectified(self.bn2(self.conv1(active)))) + around
        return out


class PreActResNet(Classifier):
    """A 3x3 convolution, then stages ``layer1``, ``layer2``, ... of blocks; each after the first halves the image.

    Args:
        problem: classes and images; from 64 pixels on the first convolution halves the image too.
        widths: channels of each stage.
        blocks: blocks in each stage.
    """

    def __init__(self, problem: Problem, *, widths: Sequence[int], blocks: int) -> None:
        stem = stem_stride(problem)
        super().__init__(problem, width=widths[-1], stride=stem * 2 ** (len(widths) - 1))
        self.conv1 = nn.Conv2d(problem.channels, widths[0], 3, stem, padding=1, bias=False)
        self._layers = [f"layer{number}" for number in range(1, len(widths) + 1)]
        for name, (inputs, outputs) in zip(self._layers, pairwise([widths[0], *widths]), strict=True):
            first = Block(inputs, outputs, 1 if name == "layer1" else 2)
            self.add_module(name, nn.Sequential(first, *(Block(outputs, outputs, 1) for _ in range(blocks - 1))))

    def stages(self, x: Tensor) -> Tensor:
        """Last feature map, (N, D, h, w), of normalised images; it may be negative, as no ReLU follows."""
        out: Tensor = self.conv1(x)
        for name in self._layers:
            out = self.get_submodule(name)(out)
        return out


def preactresnet18(problem: Problem) -> PreActResNet:
    """PreActResNet-18; 11.2 M weights."""
    return PreActResNet(problem, widths=(64, 128, 256, 512), blocks=2)
