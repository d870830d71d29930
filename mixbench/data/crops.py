"""Random resized crops: boxes from draws, and what lies in a box brought to a size, for a whole batch at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCALE = (0.08, 1.0)
"""Between which shares of the image the area of a box is drawn; this and the next are Inception's, as all use them."""
RATIO = (3 / 4, 4 / 3)
"""Between which its width / height is drawn, on a logarithmic scale."""
TRIES = 10
"""Boxes drawn for an image, of which the first that fits is taken."""
DRAWS = 2 * TRIES + 3
"""Uniform numbers that an image takes: area and ratio of each try, the box's place, and whether it is mirrored."""


def boxes(draws: Tensor, height: int, width: int) -> Tensor:
    """The boxes that torchvision's `RandomResizedCrop` would draw, in its distribution.

    Args:
        draws: (N, `DRAWS`) float64 in [0, 1).
        height: of the images, in pixels.
        width: likewise.

    Returns:
        (N, 4) int64: top, left, height and width of each. Where no try fits, the largest box in the middle whose ratio
        is allowed.
    """
    area = height * width * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws[:, :TRIES])
    low, high = map(math.log, RATIO)
    ratio = (low + (high - low) * draws[:, TRIES : 2 * TRIES]).exp()
    sides = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=2).round().long()
    whole = torch.tensor([height, width])
    fits = ((sides > 0) & (sides <= whole)).all(2)
    first = fits.long().argmax(1)  # of equal ones, argmax takes the first
    chosen = sides[torch.arange(len(draws)), first]
    corner = (draws[:, 2 * TRIES : 2 * TRIES + 2] * (whole - chosen + 1)).long()
    fallback = torch.tensor(_middle(height, width))
    return torch.where(fits.any(1, keepdim=True), torch.cat([corner, chosen], dim=1), fallback)


def _middle(height: int, width: int) -> tuple[int, int, int, int]:
    wide, high = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (height - high) // 2, (width - wide) // 2, high, wide


def mirrored(draws: Tensor) -> Tensor:
    """(N,) bool, true for every second of the ``draws`` of `boxes`."""
    return draws[:, -1] < 0.5


def resized(x: Tensor, boxes: Tensor, mirrored: Tensor, *, interpolation: str) -> Tensor:
    """What lies in each image's box, brought to the size of the image; pixels outside have no influence.

    Pixels are weighed as Pillow does, and torchvision with ``antialias=True``: an enlargement interpolates, a reduction
    averages. As Pillow, it rounds to 8 bits when columns are done, and again at the end: one in 255 may be the
    difference. Torch's own batched resampling has another cubic kernel and no antialiasing.

    Args:
        x: (N, C, H, W) float32 in [0, 1].
        boxes: (N, 4) int64 on the device of ``x``: top, left, height and width.
        mirrored: (N,) bool there.
        interpolation: ``bicubic`` or ``bilinear``.

    Returns:
        (N, C, H, W) float32, contiguous, multiples of 1 / 255 as pixels of 8 bits are.
    """
    top, left, height, width = boxes.float().unbind(1)
    rows = _weights(top, height, x.shape[2], interpolation)
    columns = _weights(left, width, x.shape[3], interpolation)
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    narrow = _rounded(x.flatten(1, 2) @ columns.transpose(1, 2).mul_(255))
    return _rounded(rows[:, None] @ narrow.view(x.shape)).div_(255)


def _rounded(pixels: Tensor) -> Tensor:
    return pixels.round_().clamp_(0, 255)


def _weights(start: Tensor, length: Tensor, size: int, interpolation: str) -> Tensor:
    """How much each of ``size`` pixels counts for each of as many new ones, (N, new, old); rows sum to 1."""
    places = torch.arange(size, device=start.device) + 0.5
    start, length = start[:, None, None], length[:, None, None]
    step = length / size
    distance = (places - start - places[:, None] * step).abs() / step.clamp(min=1)
    weights = _KERNELS[interpolation](distance) * ((places > start) & (places < start + length))
    return weights / weights.sum(2, keepdim=True)


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2, which is Pillow's; torch's own interpolation takes -3/4 unless it antialiases."""
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


_KERNELS = {"bilinear": _linear, "bicubic": _cubic}
