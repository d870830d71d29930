"""Wide residual networks (Zagoruyko & Komodakis, 2016).

They are as Manifold Mixup and PuzzleMix have them (vikasverma1077/manifold_mixup and snu-mllab/PuzzleMix,
models/wide_resnet.py), because published figures stand on that: convolutions have biases and torch's own first weights,
the stride is in a block's second convolution, each batch moves the last normalisation's statistics by 0.9, and there
is no dropout.
"""

from __future__ import annotations

from torch import Tensor, nn

from methods.ops import rectified
from mixbench.nets.base import Classifier, Problem, stem_stride


class Block(nn.Module):
    """Normalisation and ReLU before each of two 3x3 convolutions, and a shortcut around all of it.

    Where the shape changes, the shortcut is a 1x1 convolution of the input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        inner = self.conv1(rectified(self.bn1(x)))
        out: Tensor = self.conv2(rectified(self.bn2(inner))) + self.shortcut(x)
        return out


class WideResNet(Classifier):
    """A 3x3 convolution of 16 channels, stages ``layer1`` to ``layer3``, then normalisation and ReLU.

    Args:
        problem: classes and images; from 64 pixels on the first convolution halves the image too.
        depth: convolutions on the longest way through, 6 a block of each stage and 4 more.
        widen: how many times wider than 16, 32 and 64 channels the stages are.
    """

    def __init__(self, problem: Problem, *, depth: int, widen: int) -> None:
        stem = stem_stride(problem)
        super().__init__(problem, width=64 * widen, stride=4 * stem)
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(problem.channels, 16, 3, stem, padding=1)
        self.layer1 = _stage(16, 16 * widen, blocks, stride=1)
        self.layer2 = _stage(16 * widen, 32 * widen, blocks, stride=2)
        self.layer3 = _stage(32 * widen, 64 * widen, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * widen, momentum=0.9)

    def stages(self, x: Tensor) -> Tensor:
        """Last feature map, (N, D, h, w), of normalised images."""
        return rectified(self.bn1(self.layer3(self.layer2(self.layer1(self.conv1(x))))))


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


def wrn28_10(problem: Problem) -> WideResNet:
    """WRN-28-10: 28 convolutions deep, 10 times as wide; 36.5 M weights."""
    return WideResNet(problem, depth=28, widen=10)
