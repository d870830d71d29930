"""A network for 8 x 8 digits, small enough to be trained in seconds."""

from __future__ import annotations

from torch import Tensor, nn

from methods.ops import rectified
from mixbench.nets.base import Classifier, Problem, convolution


class Stage(nn.Module):
    """A 3x3 convolution, batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, stride=stride)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        return rectified(self.bn(self.conv(x)))


class Tiny(Classifier):
    """Four 3x3 convolutions with 8, 16, 16 and 32 channels, the image halved once; 8.6 k weights for digits."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, width=32, stride=2)
        self.stem = Stage(problem.channels, 8)
        self.layer1 = Stage(8, 16)
        self.layer2 = Stage(16, 16, stride=2)
        self.layer3 = Stage(16, 32)

    def stages(self, x: Tensor) -> Tensor:
        """Last feature map, (N, 32, H / 2, W / 2), of normalised images."""
        out: Tensor = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return out


def tiny(problem: Problem) -> Tiny:
    """The quickstart's network."""
    return Tiny(problem)
