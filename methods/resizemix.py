"""ResizeMix: the whole of one image, made small, pasted into another."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Batch, Mixed, Mixer, Network, register
from methods.boxes import box_of, draw_centres, inside_of, share_outside
from methods.ops import (
    beside,
    check_choice,
    check_prob,
    draw_lam,
    draw_partners,
    laid_out_as,
    pair,
    soft_labels,
)

DEFINITIONS = {"paper": "nearest", "mmpretrain": "bilinear"}
"""How each of them resizes."""


@register("resizemix")
class ResizeMix(Mixer):
    """Pastes the whole of another image of the batch, made small (Qin et al., 2020).

    It is resized to what is visible of its box, whose centre is anywhere and which is clipped at the border; labels are
    weighed by areas. Two definitions are published, which paste about a quarter and about half of an image:

    - "paper": the sides of the box are a share tau of the image's, drawn from the scope; nearest pixels (the paper;
      Westlake-AI/openmixup, ``mixups/resizemix.py``).
    - "mmpretrain": lam, the share of the image that stays before clipping, is drawn from the scope; bilinear
      (open-mmlab/mmpretrain, ``batch_augments/resizemix.py``).

    Args:
        definition: "paper" or "mmpretrain".
        scope: the least and the largest tau, or lam; 0.1 and 0.8 in both.
        alpha: where in the scope it lies is drawn from Beta(alpha, alpha), uniformly at 1, which is the published one.
        prob: the probability of mixing a batch, or an image where ``draw`` is "sample".
        draw: "batch" draws one box for the whole batch, as both do; "sample" one for each image.
    """

    label = "ResizeMix"
    source = "Qin et al., 2020"
    defaults = "ResizeMix in Westlake-AI/openmixup"
    draws = "a size and a place for each batch"

    def __init__(
        self,
        *,
        definition: Literal["paper", "mmpretrain"] = "paper",
        scope: tuple[float, ...] = (0.1, 0.8),
        alpha: float = 1.0,
        prob: float = 1.0,
        draw: Literal["batch", "sample"] = "batch",
    ) -> None:
        super().__init__()
        if len(scope) != 2 or not 0 < scope[0] <= scope[1] < 1:
            raise ValueError(f"scope is {scope}: it must be two numbers between 0 and 1, the smaller one first")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha is {alpha}: it must be a finite number above 0; take prob 0 to mix nothing")
        self.definition = check_choice("definition", definition, tuple(DEFINITIONS))
        self.low, self.high = scope
        self.alpha = alpha
        self.prob = check_prob(prob)
        self.draw = check_choice("draw", draw, ("batch", "sample"))

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch.

        Raises:
            ValueError: the images are so small that a box could be empty.
        """
        size, _, height, width = batch.x.shape
        self._check_side(min(height, width))
        partners = draw_partners(size, 2, self.generator)
        boxes = self.draw_boxes(size if self.draw == "sample" else 1, height, width)
        partners, weights = beside(batch.x, partners, pair(share_outside(boxes, height, width)))
        x = paste_whole(batch.x, partners, boxes, mode=DEFINITIONS[self.definition])
        return Mixed(x, soft_labels(batch.y, partners, weights))

    def draw_boxes(self, count: int, height: int, width: int) -> Tensor:
        """(count, 4) boxes on the CPU, see `box_of`; empty where nothing is to be mixed."""
        place = draw_lam(count, 2, self.alpha, self.generator)[:, 0].double()
        mixed = torch.rand(count, generator=self.generator) < self.prob
        centres = draw_centres(count, height, width, self.generator)
        drawn = self.low + (self.high - self.low) * place
        side = drawn if self.definition == "paper" else (1 - drawn).sqrt()
        return box_of(torch.where(mixed, side, 0.0), centres, height, width)

    def _check_side(self, pixels: int) -> None:
        smallest = self.low if self.definition == "paper" else math.sqrt(1 - self.high)
        if pixels * smallest < 2:
            raise ValueError(
                f"images of {pixels} pixels a side are too small for resizemix: its smallest box has {smallest:.3g} "
                f"of it, but needs 2; take images with at least {math.ceil(2 / smallest)} pixels a side"
            )


def paste_whole(x: Tensor, partners: Tensor, boxes: Tensor, *, mode: str) -> Tensor:
    """Each image with its partner in a box, resized to it.

    Args:
        x: (N, C, H, W).
        partners: (N, 2) indices into the batch.
        boxes: (N, 4), or (1, 4) for the whole batch, on the CPU: top, left, bottom, right.
        mode: "nearest" or "bilinear", as `torch.nn.functional.interpolate` does it.
    """
    sources = partners[:, 1]
    if len(boxes) == 1:
        top, left, bottom, right = boxes[0].tolist()
        mixed = x.clone()
        if top < bottom and left < right:
            small = F.interpolate(x, size=(bottom - top, right - left), mode=mode)
            mixed[:, :, top:bottom, left:right] = small[sources]
        return mixed
    (boxes,) = beside(x, boxes)
    rows = _origins(boxes[:, 0], boxes[:, 2], x.shape[2], mode)
    columns = _origins(boxes[:, 1], boxes[:, 3], x.shape[3], mode)
    small = _nearest(x, sources, rows, columns) if mode == "nearest" else _bilinear(x, sources, rows, columns)
    return inside_of(boxes, small, x)


def _origins(low: Tensor, high: Tensor, size: int, mode: str) -> Tensor:
    """Where in an image of ``size`` each place comes from if the image fills low to high, (N, size) float32.

    In rows, or in columns; beyond that the place of the border.
    """
    shift = 0.0 if mode == "nearest" else 0.5
    extent = (high - low).clamp_min(1).float()
    # A number divided by a tensor would be its reciprocal, rounded, times the number.
    scale = (torch.full_like(extent, size) / extent)[:, None]
    within = torch.arange(size, device=low.device) - low[:, None]
    return ((within + shift) * scale - shift).clamp_(0, size - 1)


def _nearest(x: Tensor, sources: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at these places, rounded down, of the images ``sources``: (N, C, H, W), laid out as x."""
    rows, columns = rows.long()[:, :, None], columns.long()[:, None, :]
    return laid_out_as(x, x[sources[:, None, None], :, rows, columns].permute(0, 3, 1, 2))


def _bilinear(x: Tensor, sources: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The values between the four pixels around these places: (N, C, H, W), laid out as x."""
    down, aside = (places.frac().to(x.dtype) for places in (rows[:, None, :, None], columns[:, None, None, :]))
    below, beyond = ((places + 1).clamp_(max=places.shape[1] - 1) for places in (rows, columns))
    upper = _nearest(x, sources, rows, columns).lerp_(_nearest(x, sources, rows, beyond), aside)
    lower = _nearest(x, sources, below, columns).lerp_(_nearest(x, sources, below, beyond), aside)
    return upper.lerp_(lower, down)
