"""PuzzleMix's transport: salient blocks of an image move to where the image is shown."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.ops import Poll, beside, laid_out_as

PLACES = 2**20
"""More than the blocks of any grid; a power of 2."""


def sources(saliency: Tensor, visible: Tensor, t_eps: float, poll: Poll) -> Tensor:
    """Which block moves to each place, (N, T * T) int64 indices of blocks, row by row; a block shows up once at most.

    It costs t_eps times squared distance to move a block, where the grid's side is 1, and its saliency is gained where
    it is visible. Blocks ask for the place where they gain most, the nearest; a place takes the one that gains most
    there, and whoever is turned down asks for the next best as long as that is a gain: T rounds of deferred acceptance
    (Gale and Shapley, 1962), in which the authors' code (snu-mllab/PuzzleMix, transport.py) comes to the same. Ties go
    to the lower index. A place that nobody asks for keeps its block, which is hidden there, or has no saliency: in the
    authors' code it is black.

    Args:
        saliency: (N, T, T), the share of each block; sums to 1.
        visible: (N, T, T) bool.
        t_eps: above 0.
        poll: asked for the largest saliency, on which it depends how far a block may go, and after each round.
    """
    side = saliency.shape[1]
    steps, price = _steps(side, t_eps)
    reach = int(np.searchsorted(price.numpy(), poll(saliency.amax())))
    ahead = torch.tensor([row * side + column for row, column in steps[:reach]])
    price, ahead = beside(saliency, price[:reach], ahead)
    following = _next_gain(saliency, visible, steps[:reach], price)
    saliency = saliency.flatten(1)
    own = torch.arange(side**2, device=saliency.device).expand_as(saliency)
    choice = following[0]
    for _ in range(side):
        asking = choice < reach
        step = choice.clamp_max(reach - 1).long()
        # Gains are positive: as integers, their bits are in the same order. The lower of two equal blocks ranks higher.
        rank = (saliency - price[step]).view(torch.int32).long() * PLACES + (PLACES - 1 - own)
        place = torch.where(asking, own + ahead[step], 0)
        rank = torch.where(asking, rank, -1)
        best = torch.full_like(rank, -1).scatter_reduce_(1, place, rank, "amax")
        lost = asking & (best.gather(1, place) != rank)
        if not poll(lost.any()):
            break
        after = following.gather(0, (choice + 1).clamp_max(reach).long()[None])[0]
        choice = torch.where(lost, after, choice)
    return torch.where(best >= 0, PLACES - 1 - best % PLACES, own)


@functools.lru_cache(maxsize=16)
def _steps(side: int, t_eps: float) -> tuple[list[tuple[int, int]], Tensor]:
    """Rows and columns that a block can go, the nearest first, then in the order of places; and what each costs."""
    spans = range(1 - side, side)
    steps = sorted(product(spans, spans), key=lambda step: (step[0] ** 2 + step[1] ** 2, step))
    squared = torch.tensor([row**2 + column**2 for row, column in steps], dtype=torch.float32)
    return steps, squared / (side - 1) ** 2 * t_eps


def _next_gain(saliency: Tensor, visible: Tensor, steps: Sequence[tuple[int, int]], price: Tensor) -> Tensor:
    """For each number of a step the first from there on that is a gain for a block, (steps + 1, N, T * T) int32."""
    side = saliency.shape[1]
    shown = F.pad(visible, [side - 1] * 4)
    following = torch.full((len(steps) + 1, *saliency.shape), len(steps), dtype=torch.int32, device=saliency.device)
    for number in reversed(range(len(steps))):
        row, column = (part + side - 1 for part in steps[number])
        gain = shown[:, row : row + side, column : column + side] & (saliency > price[number])
        following[number] = torch.where(gain, number, following[number + 1])
    return following.flatten(2)


def assemble(x: Tensor, others: Tensor, partners: Tensor, share: Tensor, moved: tuple[Tensor, Tensor]) -> Tensor:
    """Two images in one, block by block, (N, C, H, H), laid out in memory as ``x``.

    Args:
        x: (N, C, H, H) images.
        others: (N, C, H, H), the images of the same batch as they look where they are a partner.
        partners: (N, 2) indices into the batch; column 0 is the image itself.
        share: (N, T, T), how much of the image itself each block shows.
        moved: (N, T * T) each, which of its blocks an image shows at each place, and which its partner.
    """
    side, height = share.shape[1], x.shape[2]
    weight = share.reshape(-1, 1)
    first, second = (
        _rows(images, side)[(whose[:, None] * side**2 + source).flatten()]
        for images, whose, source in zip((x, others), partners.unbind(1), moved, strict=True)
    )
    rows = first.mul_(weight).add_(second.mul_(1 - weight))
    pixels = rows.view(-1, side, side, height // side, height // side, x.shape[1]).transpose(2, 3)
    mixed = pixels.reshape(len(x), height, height, -1).permute(0, 3, 1, 2)
    return laid_out_as(x, mixed)


def _rows(x: Tensor, side: int) -> Tensor:
    """The blocks of all images, a row each, its pixels' channels together."""
    count, channels, height, _ = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(count, side, height // side, side, -1, channels)
    return pixels.transpose(2, 3).reshape(count * side**2, -1)
