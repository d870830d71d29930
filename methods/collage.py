"""What m collages show of m images, block by block: Co-Mixup's objective, and its authors' way of lowering it.

All is done for P partitions at once, of m images each, on the CPU: what is decided is small, and one step after the
other. A collage has B x B blocks, numbered row by row, of which each shows one image or, by half, two. ``shares``,
(P, m, B * B, m) float32, say how much of each image (last) is in each block of each collage. From Kim et al. (2021) by
way of their code (snu-mllab/Co-Mixup at 2a76816), whose constants, integers and order these are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from methods import potts
from methods.ops import check_choice, check_weight
from methods.potts import Flags, Integers
from methods.saliency import peaks

Single = NDArray[np.float32]

WINDOW = 8
"""Side in pixels of the windows of which an image's most salient one is its peak."""
CHEAPER = np.float32(5e-4)
"""By which two images by half cost less than the mean of the two."""
COST, EDGE = np.float32(1e5), 1000
"""The integers that costs, and weights of edges, are cut off to. So distances are in hundredths."""
APART, PARENT = 100, 25
"""Distance between any two labels, and between two images by half and one of the two."""
NEVER = 2**50
"""The cost of a label that a collage does not have."""
SETTLED = 1e-6
"""A sweep that changes the objective by less than this share of it is the last."""


@dataclass(frozen=True, kw_only=True)
class Collages:
    """What is minimised, and how.

    Attributes:
        beta: weight of smoothness, of a whole grid's block.
        gamma: what it costs to show an image that other collages show, likewise.
        thres: how many blocks other collages may show of an image at no cost, as a share of one image's blocks.
        thres_type: "hard": above that all blocks count; "soft": those above it.
        eta: weight of the prior.
        omega: how much more it counts if images are shown elsewhere whose peaks are far away, in [0, 1].
        resolve: whether collages of the same images are parted before the last sweep.
        niter: sweeps at most.
    """

    beta: float
    gamma: float
    thres: float
    thres_type: str
    eta: float
    omega: float
    resolve: bool
    niter: int

    def __post_init__(self) -> None:
        for option in ("beta", "gamma", "thres", "eta"):
            check_weight(f"m_{option}", getattr(self, option))
        check_weight("m_omega", self.omega, most=1)
        check_choice("m_thres_type", self.thres_type, ("hard", "soft"))
        if self.niter < 1:
            raise ValueError(f"m_niter is {self.niter}: it must be at least 1")

    def check_blocks(self, blocks: int, images: int) -> int:
        """``blocks`` itself, along the side of a grid, for partitions of so many images.

        Raises:
            ValueError: fewer than 2, or the integers that labels are found by would be too large.
        """
        if blocks < 2:
            raise ValueError(f"m_block_num holds {blocks}: a side must have at least 2 blocks")
        edges = 4 * APART * EDGE * self.beta / blocks**2
        costs = float(COST) * (2 * self.gamma * images * images + 20 * self.eta) + edges * blocks**2
        if costs > NEVER / blocks**2:
            raise ValueError(
                f"m_beta is {self.beta}, m_gamma {self.gamma} and m_eta {self.eta}: with {blocks} blocks along a side, "
                f"the integers that labels are found by would overflow; each collage is one image at values far below"
            )
        return blocks

    def solve(self, saliency: Single, peaks: Integers, prior: Single, labels: Integers) -> Single:
        """The shares that it ends with.

        Args:
            saliency: (P, m, B * B), the share that each block has of an image's; see `blocks.block_saliency`.
            peaks: (P, m, 2), see `peak_positions`.
            prior: (P, m) float32, how likely each image is; a partition's sum to 1.
            labels: (P, m, B * B), the image that each block of each collage shows at first.
        """
        costs = image_costs(saliency, prior, self.eta)
        shares = np.eye(labels.shape[1], dtype=np.float32)[labels]
        reach = compatibility(distances(peaks), self.omega)
        parting = np.zeros((*labels.shape[:2], labels.shape[1]), np.float32)
        going, before = np.arange(len(labels)), self.objective(costs, shares)
        for sweep in range(self.niter):
            shares[going] = self.sweep(costs[going], reach[going], parting[going], shares[going], paired=sweep > 0)
            after = self.objective(costs[going], shares[going])
            moving = ~(np.abs(before - after) < SETTLED * np.abs(before))
            going, before = going[moving], after[moving]
            if not len(going):
                break
            if self.resolve and sweep == self.niter - 2:
                parting[going] = rivals(shares[going])
        return shares

    def sweep(self, costs: Single, reach: Single, parting: Single, shares: Single, *, paired: bool) -> Single:
        """The shares after each collage in turn was made anew, the others being what they are by then.

        Args:
            costs: (P, B * B, m), see `image_costs`.
            reach: (P, m, m), see `compatibility`.
            parting: (P, m, m), by how many blocks an image counts more in a collage; see `rivals`.
            shares: see above.
            paired: whether blocks may also show two images by half.
        """
        shares = shares.copy()
        weight = self.gamma / costs.shape[1]
        counts = shares.sum(2)
        for number in range(shares.shape[1]):
            dearer = self.penalty(reach, counts.sum(1) - counts[:, number], costs.shape[1])
            own = (costs + dearer[:, None]) + np.float32(weight) * parting[:, number, None]
            shares[:, number] = self.remade(own, counts[:, number], paired=paired)
            counts[:, number] = shares[:, number].sum(1)
        return shares

    def penalty(self, reach: Single, counts: Single, blocks: int) -> Single:
        """What it costs to show each image in a block, (P, m), when other collages show it in ``counts`` blocks."""
        weight, most = np.float32(2 * self.gamma / blocks), np.float32(self.thres * blocks)
        near = (reach @ counts[..., None])[..., 0]
        if self.thres_type == "soft":
            return np.asarray(weight * (near - most).clip(0))
        # The authors' code selects columns by their excess, not rows.
        return np.asarray(weight * (reach @ (counts * (near > most))[..., None])[..., 0])

    def remade(self, costs: Single, counts: Single, *, paired: bool) -> Single:
        """A collage of each partition, (P, B * B, m), made at these costs, (P, B * B, m).

        Where the last one showed images in ``counts`` blocks, (P, m), two of the three that it showed most may also be
        shown by half.
        """
        images = costs.shape[2]
        pairs, there = most_held(counts)
        if not paired:
            pairs, there = pairs[:, :0], there[:, :0]
        partition = np.arange(len(costs))[:, None]
        both = costs[partition, :, pairs[..., 0]] + costs[partition, :, pairs[..., 1]]
        both = (both / 2 - CHEAPER).transpose(0, 2, 1)
        whole = np.trunc(np.concatenate([costs, both], 2) * COST).astype(np.int64)
        whole[..., images:][np.broadcast_to(~there[:, None], both.shape)] = NEVER
        edge = int(np.float32(self.beta / costs.shape[1]) * EDGE)
        labels = potts.swap(whole, edge, label_distances(images, pairs))
        held = np.zeros((len(costs), whole.shape[2], images), np.float32)
        held[:, :images] = np.eye(images)
        for parent in (0, 1):
            held[partition, images + np.arange(pairs.shape[1]), pairs[..., parent]] = 0.5
        return np.asarray(held[partition, labels])

    def objective(self, costs: Single, shares: Single) -> Single:
        """What each partition pays, (P,), by the count that says when to stop: without threshold and compatibility."""
        blocks = shares.shape[2]
        side = int(blocks**0.5)
        grid = shares.reshape(*shares.shape[:2], side, side, -1)
        seams = sum((np.diff(grid, axis=axis) ** 2).sum((1, 2, 3, 4)) for axis in (2, 3))
        counts = shares.sum(2)
        shared = (counts.sum(1) ** 2).sum(1) - (counts**2).sum((1, 2))
        own = (costs[:, None] * shares).sum((1, 2, 3))
        return np.asarray(own + self.beta / blocks / 2 * seams + self.gamma / blocks * shared)


def image_costs(saliency: Single, prior: Single, eta: float) -> Single:
    """What it costs to show each image in each block, (P, B * B, m) float32: what is salient or likely costs less."""
    blocks = saliency.shape[2]
    likely = np.float32(eta / blocks) * np.log(prior + np.float32(1e-8))
    return np.asarray(-saliency.transpose(0, 2, 1) - likely[:, None], np.float32)


def peak_positions(saliency: torch.Tensor) -> torch.Tensor:
    """Row and column of the most salient window of each image, (N, 2) int64; of equal ones the first row by row.

    ``saliency`` is (N, H, H). In images smaller than `WINDOW` there is only one.
    """
    side = min(WINDOW, saliency.shape[2])
    windows = torch.nn.functional.avg_pool2d(saliency[:, None], side, 1)[:, 0]
    return peaks(windows)


def distances(peaks: Integers) -> Single:
    """Between the peaks of each two images of a partition in city blocks, (P, m, m); ``peaks`` is (P, m, 2)."""
    return np.asarray(np.abs(peaks[:, :, None] - peaks[:, None]).sum(3), np.float32)


def compatibility(apart: Single, omega: float) -> Single:
    """How much an image counts as shown where another one is, (P, m, m): more the further apart their peaks are.

    Where all peaks are in the same place only an image itself counts; the authors' code divides by 0 there.
    """
    images = apart.shape[1]
    whole = apart.sum((1, 2), keepdims=True)
    share = np.divide(omega * images * apart, whole, out=np.zeros_like(apart), where=whole > 0)
    return np.asarray((1 - omega) * np.eye(images) + share, np.float32)


def most_held(counts: Single) -> tuple[Integers, Flags]:
    """Pairs of the three images that a collage shows most, (P, pairs, 2), and whether it shows both, (P, pairs).

    Of images that it shows as much, those are taken that `torch.topk` names, as in the authors' code.
    """
    top = np.sort(torch.from_numpy(counts).topk(min(3, counts.shape[1])).indices.numpy(), 1)
    numbers = np.array(list(combinations(range(top.shape[1]), 2)), np.int64).reshape(-1, 2)
    pairs = top[:, numbers]
    return pairs, (counts[np.arange(len(counts))[:, None, None], pairs] > 0).all(2)


def label_distances(images: int, pairs: Integers) -> Integers:
    """Between labels, (P, n, n): first the images, then the pairs, (P, pairs, 2), of two by half."""
    count = images + pairs.shape[1]
    apart = np.full((len(pairs), count, count), APART)
    apart[:, range(count), range(count)] = 0
    partition, label = np.arange(len(pairs))[:, None], images + np.arange(pairs.shape[1])
    for parent in pairs.transpose(2, 0, 1):
        apart[partition, label, parent] = apart[partition, parent, label] = PARENT
    return apart


def rivals(shares: Single) -> Single:
    """How often each image of a collage is to be avoided since others are made of the same ones, (P, m, m) float32.

    Of two collages of the same images, two or more, the earlier is to do without the first, the later without the
    second.
    """
    shown = shares.sum(2) > 0
    alike = np.triu((shown[:, :, None] == shown[:, None]).all(3), 1) & (shown.sum(2) >= 2)[:, None]
    rank = shown.cumsum(2)
    first, second = (shown & (rank == number) for number in (1, 2))
    return np.asarray(first * alike.sum(2)[..., None] + second * alike.sum(1)[..., None], np.float32)
