"""ResNet-50 for photographs (He et al., 2016), with torchvision's stages."""

from __future__ import annotations

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from methods.ops import rectified
from mixbench.nets.base import Classifier, Problem, convolution


class ResNet50(Classifier):
    """A 7x7 convolution and max pooling, which quarter the image, then torchvision's stages of bottlenecks.

    Weights have torchvision's names, so that its checkpoints can be loaded.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, width=2048, stride=32)
        self.conv1 = convolution(problem.channels, 64, size=7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        theirs = torchvision.models.resnet50(num_classes=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4

    def stages(self, x: Tensor) -> Tensor:
        """Last feature map, (N, 2048, H / 32, W / 32), of normalised images."""
        quarter = F.max_pool2d(rectified(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(quarter))))
        return out


def resnet50(problem: Problem) -> ResNet50:
    """ResNet-50; 25.6 M weights for ImageNet's 1,000 classes."""
    return ResNet50(problem)
