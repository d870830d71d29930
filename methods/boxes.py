"""Boxes, and what is put into them: the parts that CutMix, SaliencyMix and ResizeMix share.

One box holds for the whole batch. Where its place is drawn, it stays on the CPU, as sizes must; where the place is
found on the device, the box is there, and nothing waits for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.ops import Generator, beside, draw_lam

# ---- draws, on the CPU


def draw_kept(count: int, alpha: float, prob: float, generator: Generator) -> Tensor:
    """The share of an image that stays, before its box is clipped: (count,) float32.

    From Beta(alpha, alpha) with a probability of ``prob``, else 1: nothing is to be mixed.
    """
    lam = draw_lam(count, 2, alpha, generator)[:, 0]
    mixed = torch.rand(count, generator=generator) < prob
    return torch.where(mixed, lam, 1.0)


def draw_centres(count: int, height: int, width: int, generator: Generator) -> Tensor:
    """Centres of ``count`` boxes, (count, 2) int64: row and column of a pixel, each equally likely."""
    rows = torch.randint(height, (count,), generator=generator)
    columns = torch.randint(width, (count,), generator=generator)
    return torch.stack([rows, columns], dim=1)


# ---- functions of draws


def box_around(lam: Tensor, centres: Tensor, height: int, width: int) -> Tensor:
    """CutMix's box: a share 1 - lam of the image around a centre, see `box_of`.

    Args:
        lam: (count,) share of the image that stays, in [0, 1], on the CPU.
        centres: (count, 2) int64, row and column.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    return box_of((1 - lam.double()).sqrt(), centres, height, width)


def box_of(side: Tensor, centres: Tensor, height: int, width: int) -> Tensor:
    """A box around a centre, clipped at the border.

    Its sides are rounded down and then halved, rounded down again, so an odd side loses one pixel, as in the authors'
    code (clovaai/CutMix-PyTorch, ``train.py``, ``rand_bbox``).

    Args:
        side: (count,) float64 sides of the box in those of the image, in [0, 1], on the CPU.
        centres: (count, 2) int64, row and column.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        (count, 4) int64 beside the centres: top, left, bottom, right; bottom and right are excluded.
    """
    sides = torch.tensor([height, width])
    half, sides = beside(centres, (sides * side[:, None]).long() // 2, sides)
    low = (centres - half).clamp_min(0)
    high = torch.minimum(centres + half, sides)
    return torch.cat([low, high], dim=1)


def share_outside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Share of an image that lies outside of each box, (count,) float64: what a clipped box leaves visible."""
    top, left, bottom, right = boxes.unbind(1)
    return 1 - ((bottom - top) * (right - left)).double() / (height * width)


def paste(x: Tensor, partners: Tensor, boxes: Tensor) -> Tensor:
    """Each image with a box overwritten by the same place of its partner, every pixel exactly one of the two.

    Args:
        x: (N, C, H, W).
        partners: (N, 2) indices into the batch.
        boxes: (N, 4), or (1, 4) for the whole batch, on the CPU or beside x: top, left, bottom, right.
    """
    if len(boxes) == 1 and boxes.is_cpu:
        top, left, bottom, right = boxes[0].tolist()
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right][partners[:, 1]]
        return mixed
    return inside_of(boxes, x[partners[:, 1]], x)


def inside_of(boxes: Tensor, inside: Tensor, x: Tensor) -> Tensor:
    """The images ``inside`` within the boxes, x elsewhere; written to ``inside``, which is (N, C, H, W) as x is."""
    (boxes,) = beside(x, boxes)
    # lerp by a weight of 0 or 1 returns one of its ends bit for bit, and is several times faster than torch.where.
    outside = 1 - _inside(boxes, *x.shape[2:]).to(x.dtype)
    return inside.lerp_(x, outside)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in each box, (count, 1, height, width) bool."""
    top, left, bottom, right = boxes[:, :, None].unbind(1)
    rows, columns = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    in_rows = (top <= rows) & (rows < bottom)
    in_columns = (left <= columns) & (columns < right)
    return (in_rows[:, :, None] & in_columns[:, None, :]).unsqueeze(1)
