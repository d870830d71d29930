"""What it costs to show the one or the other of two images in each block of a grid: PuzzleMix's objective.

A grid has B x B blocks. Its labels are 0 to n - 1: with label k a block shows a share 1 - t of the first image, which
is the image itself, and t = k / (n - 1) of the second, its partner. From Kim et al. (2020), equation 5, by way of their
code (snu-mllab/PuzzleMix at e2dbf3a), whose constants and integers these are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from methods import graphcut
from methods.maxflow import LARGEST
from methods.ops import Poll, beside, check_choice, check_weight

DISTANCES: Mapping[int, tuple[int, ...]] = MappingProxyType({2: (0, 1), 3: (0, 1, 4), 4: (0, 11, 44, 100)})
"""For each number of labels, (t - t')^2 by the difference of two labels, in units of the last.

The authors' code has whole hundredths, which are exact but for four labels; theirs of two and three are shortened here.
"""
UNITS = 1000
"""Times B * B: the integers that the authors' costs are cut off to."""


@dataclass(frozen=True)
class Costs:
    """What each image of a batch pays for what it shows.

    Attributes:
        shown: (2, N, B, B), for showing the first image in a block, and for showing the second.
        down: (N, B - 1, B), the weight of (t - t')^2 between a block and the one below.
        right: (N, B, B - 1), that between a block and the one on the right.
    """

    shown: Tensor
    down: Tensor
    right: Tensor

    def of_labels(self, prior: Tensor) -> Tensor:
        """What each label of a block costs, (N, B, B, n) float64; ``prior`` is of `label_prior`."""
        t = torch.linspace(0, 1, len(prior), dtype=torch.float64, device=prior.device)
        shown = self.shown.double()[..., None]
        return (1 - t) * shown[0] + t * shown[1] + prior


DIVERGED = "the network's gradient is NaN or infinite, so its training has diverged; take a smaller lr"
"""What to say of a saliency that is not finite."""


def check_grids(x: Tensor, option: str, numbers: Sequence[int], *, method: str) -> None:
    """Refuse images that cannot be cut into so many blocks along a side, which are the method's ``option``.

    Raises:
        ValueError: images are not square, or their side is no multiple of one of the numbers.
    """
    height, width = x.shape[2:]
    if height != width:
        raise ValueError(f"images have {height} x {width} pixels: {method} mixes square ones")
    for blocks in numbers:
        if width % blocks:
            fitting = ", ".join(str(number) for number in range(2, width + 1) if width % number == 0)
            raise ValueError(f"{option} holds {blocks}, but images have {width} pixels a side: take of {fitting}")


def block_saliency(saliency: Tensor, blocks: int) -> Tensor:
    """The share that each block has of an image's saliency, (N, B, B); those of an image sum to 1.

    Where there is none at all every block has the same share: the authors' code divides by 0 there, and then shows
    black. ``saliency`` is (N, H, H), not negative.
    """
    means = F.avg_pool2d(saliency[:, None], saliency.shape[2] // blocks)[:, 0]
    whole = means.sum((1, 2), keepdim=True)
    return torch.where(whole == 0, 1 / blocks**2, means / whole)


def block_costs(x: Tensor, partners: Tensor, saliency: Tensor, *, beta: float, gamma: float, neigh_size: int) -> Costs:
    """What each image of a batch pays where it is mixed with its partner.

    You pay for what you hide, so for showing one image the saliency of the other; and for seams: `beta` where two
    neighbours show different images, and up to `gamma` times that where what meets looks different.

    Args:
        x: (N, C, H, H) images in [0, 1].
        partners: (N, 2) indices into the batch; column 0 is the image itself.
        saliency: (N, B, B), see `block_saliency`.
        beta: weight of smoothness.
        gamma: weight of smoothness of the pictures, as a share of beta.
        neigh_size: side in pixels of the windows over whose means pictures are compared; see `divisor`.
    """
    blocks, other = saliency.shape[1], partners[:, 1]
    side = x.shape[2] // blocks
    window = divisor(side, neigh_size)
    smooth = beta / (16 * blocks)
    windows = F.avg_pool2d(x, window)
    both = torch.stack([windows, windows[other]])
    down = seams(both, side // window) * (smooth * gamma)
    right = seams(both.transpose(3, 4), side // window).transpose(3, 4) * (smooth * gamma)
    # What a block pays for a seam is the mean over what the block beyond it may show; the rest is the edge's weight.
    shown = torch.stack([saliency[other], saliency])
    shown = shown + F.pad(down.mean(1), (0, 0, 0, 1)) + F.pad(down.mean(0), (0, 0, 1, 0))
    shown = shown + F.pad(right.mean(1), (0, 1)) + F.pad(right.mean(0), (1, 0))
    return Costs(shown, smooth + _more_if_different(down), smooth + _more_if_different(right))


def seams(both: Tensor, cells: int) -> Tensor:
    """How unlike what meets at the lower border of a block is, (2, 2, N, B - 1, B): by the image above, and below it.

    Args:
        both: (2, N, C, B * cells, B * cells), first and second images as means over windows.
        cells: windows along a block's side.
    """
    above, below = both[..., cells - 1 : -1 : cells, :], both[..., cells::cells, :]
    apart = (above[:, None] - below[None]).abs().mean(3)
    return apart.reshape(*apart.shape[:4], -1, cells).mean(5)


def _more_if_different(seam: Tensor) -> Tensor:
    """How much more it costs to show different images on both sides of a seam than the same one."""
    return (seam[0, 1] + seam[1, 0] - seam[0, 0] - seam[1, 1]) / 2


def same_block(values: Tensor, side: int) -> Tensor:
    """What each block of a finer grid lies in, (N, T, T), from (N, B, B); B divides T, the ``side``."""
    return values.repeat_interleave(side // values.shape[1], 1).repeat_interleave(side // values.shape[2], 2)


def divisor(side: int, most: int) -> int:
    """The largest divisor of a block's side that is at most so much.

    The authors' code takes ``most`` or the side, whichever is less, and misplaces windows that do not fill a block; its
    variant for ImageNet has 2 written in, as this gives for blocks of 14 pixels.
    """
    return max(number for number in range(1, side + 1) if side % number == 0 and number <= most)


def label_prior(lam: float, n_labels: int, blocks: int, eta: float) -> Tensor:
    """What each label costs wherever it is, (n,) float64 on the CPU: the binomial distribution of its share at lam."""
    k = torch.arange(n_labels, dtype=torch.float64)
    ways = torch.tensor([math.comb(n_labels - 1, number) for number in range(n_labels)])
    probability = ways * lam ** (n_labels - 1 - k) * (1 - lam) ** k
    return -eta / blocks**2 * (probability + 1e-8).log()


# ---- labels


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised, and how.

    Attributes:
        n_labels: 2 to 4.
        beta: see `block_costs`.
        gamma: see `block_costs`; at most 1.
        eta: see `label_prior`.
        neigh_size: see `block_costs`.
        solver: "swap" or "exact", see `swapped` and `cheapest`.
    """

    n_labels: int
    beta: float
    gamma: float
    eta: float
    neigh_size: int
    solver: str

    def __post_init__(self) -> None:
        if self.n_labels not in DISTANCES:
            raise ValueError(f"n_labels is {self.n_labels}: it must be one of {', '.join(map(str, DISTANCES))}")
        if self.neigh_size < 1:
            raise ValueError(f"neigh_size is {self.neigh_size}: it must be at least 1, in pixels")
        negative = "above 1 it can be cheaper for neighbours to differ than to agree, which no cut can minimise"
        check_weight("gamma", self.gamma, most=1, why=negative)
        check_weight("beta", self.beta)
        check_weight("eta", self.eta)
        check_choice("solver", self.solver, ("swap", "exact"))

    def check_blocks(self, blocks: int) -> int:
        """``blocks`` itself, along the side of a grid.

        Raises:
            ValueError: fewer than 2, or the integers of the cut would be too large.
        """
        if blocks < 2 or blocks != int(blocks):
            raise ValueError(f"block_num holds {blocks}: a side must have a whole number of blocks, at least 2")
        if self._largest(blocks) > LARGEST or self._finest(blocks) < UNITS * blocks**2:
            raise ValueError(
                f"beta is {self.beta} and eta {self.eta}: with {blocks} blocks along a side, the integers that labels "
                f"are found by would overflow; one label covers the image at values far below"
            )
        return int(blocks)

    def labels(self, x: Tensor, partners: Tensor, saliency: Tensor, lam: float, poll: Poll) -> Tensor:
        """The label of each block, (N, B, B) int64; arguments are those of `block_costs` and `label_prior`."""
        blocks = saliency.shape[1]
        costs = block_costs(x, partners, saliency, beta=self.beta, gamma=self.gamma, neigh_size=self.neigh_size)
        (prior,) = beside(x, label_prior(lam, self.n_labels, blocks, self.eta))
        if self.solver == "swap":
            return swapped(costs, prior, poll)
        return cheapest(costs, prior, self._finest(blocks), poll)

    def _largest(self, blocks: int) -> float:
        """The largest number in `swapped`: what the edges of a block weigh, since its own cost counts up to that."""
        edge = UNITS * blocks**2 * self.beta / (16 * blocks) * (1 + self.gamma)
        return 4 * edge * DISTANCES[self.n_labels][-1] + 1

    def _finest(self, blocks: int) -> float:
        """The largest power of 2 by which `cheapest` can multiply costs."""
        layers, smooth = self.n_labels - 1, self.beta / (16 * blocks)
        block = (1 + 4 * smooth * self.gamma) / layers + 20 * self.eta / blocks**2
        edges = 4 * smooth * (1 + self.gamma) / layers**2
        return 2.0 ** math.floor(math.log2(LARGEST / (2 * layers * (block + 2 * layers * edges))))


def swapped(costs: Costs, prior: Tensor, poll: Poll) -> Tensor:
    """Labels as the authors' code finds them, (N, B, B) int64: by `graphcut.swap`, of costs cut off to integers."""
    count, scale = len(prior), UNITS * costs.shown.shape[2] ** 2
    numbers = torch.arange(count)
    (distances,) = beside(prior, torch.tensor(DISTANCES[count])[(numbers[:, None] - numbers).abs()])
    whole = (scale * costs.of_labels(prior)).long() * DISTANCES[count][-1]
    return graphcut.swap(whole, (scale * costs.down).long(), (scale * costs.right).long(), distances, poll)


def cheapest(costs: Costs, prior: Tensor, scale: float, poll: Poll) -> Tensor:
    """Labels of the least cost, (N, B, B) int64; costs are told apart to one part in ``scale``."""
    of_labels = (scale * costs.of_labels(prior)).round().long()
    step = scale / (len(prior) - 1) ** 2
    down, right = ((step * weights.double()).round().long() for weights in (costs.down, costs.right))
    return graphcut.exact(of_labels, down, right, poll)
