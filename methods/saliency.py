"""Where a network looks: saliency maps for mixers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Network

ROUNDING = 1e-6
"""A map whose range is below this share of its largest magnitude is constant but for float32 rounding."""


@torch.no_grad()
def cam(teacher: Network, x: Tensor, y: Tensor | None) -> Tensor:
    """Class activation maps in [0, 1], (N, 1, H, W) float32 (Zhou et al., 2016). A constant map becomes all zeros.

    One forward pass without gradient gives the maps of the whole batch. The teacher runs in the mode it is in, and
    keeps it: `TeacherMixer` holds its own in eval mode.

    Args:
        teacher: the network that is asked.
        x: (N, C, H, W) images in [0, 1].
        y: (N, G) soft labels, whose largest entry is the class of the map; None takes the class the teacher predicts,
            as the TransformMix paper does for data that the teacher was not trained on (section 4.2).
    """
    features = teacher.features(x)
    scores = teacher.classify(features) if y is None else y
    return cam_from_features(features, teacher.fc.weight[scores.argmax(1)], x.shape[-2], x.shape[-1])


def cam_from_features(features: Tensor, class_weight: Tensor, height: int, width: int) -> Tensor:
    """Class activation maps in [0, 1], (N, 1, height, width) float32, from a feature map and rows of the last layer.

    Brought to size (bilinear, half-pixel centres) first and stretched to [0, 1] per image afterwards: the other order
    gives another map.

    Args:
        features: (N, D, h, w), in any precision.
        class_weight: (N, D) float32, the last layer's weights of each image's class.
        height: of the maps.
        width: of the maps.
    """
    raw = raw_cam(features, class_weight)
    maps = F.interpolate(raw, size=(height, width), mode="bilinear", align_corners=False)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    spread = high - low
    flat = spread <= ROUNDING * torch.maximum(low.abs(), high.abs())
    return (maps - low) / spread.masked_fill(flat, torch.inf)


def raw_cam(features: Tensor, class_weight: Tensor) -> Tensor:
    """Feature maps, (N, D, h, w), summed with the weights of a class, (N, D): (N, 1, h, w) float32."""
    # A product and a sum, not a matrix product: autocast would run that in bfloat16.
    return (features * class_weight[:, :, None, None]).sum(1, keepdim=True)
