"""PuzzleMix: blocks of two images, chosen and moved so that of both is seen what matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from methods.base import Batch, Mixed, Mixer, Network, register
from methods.blocks import DIVERGED, Objective, block_saliency, check_grids, divisor, same_block
from methods.ops import (
    Poll,
    beside,
    check_alpha,
    check_prob,
    check_weight,
    draw_lam,
    draw_partners,
    pair,
    soft_labels,
)
from methods.saliency import WithClean, clean_gradient, gradient_costs, magnitude
from methods.transport import assemble, sources

MOST_MOVED = 16
"""Of blocks that are moved, along a side: the authors move no more."""


@dataclass(frozen=True)
class Draws:
    """All that is random in the mix of a batch, the noise of adversarial training aside.

    Attributes:
        mixed: whether the batch is mixed at all.
        blocks: side of the grid, in blocks.
        lam: for the whole batch, by which labels of blocks are more or less likely.
        partners: (N, 2) on the CPU; column 0 is the image itself.
        noisy: whether noise is added to the image itself, and whether to it where it is a partner.
        strength: of that noise, in [0, 1].
    """

    mixed: bool
    blocks: int
    lam: float
    partners: Tensor
    noisy: tuple[bool, bool]
    strength: float


@register("puzzlemix")
class PuzzleMix(Mixer):
    """Shows each block of the image or its partner by where the network in training looks (Kim et al., 2020).

    Follows the authors' code for CIFAR and Tiny-ImageNet (snu-mllab/PuzzleMix at e2dbf3a), and gives what that gives,
    except where that goes wrong: here integers do not overflow where one block holds most of the saliency, an image
    without any saliency is cut as if it were as salient everywhere, and a block that is visible is never black.

    Args:
        mixup_alpha: lam is drawn for each batch from Beta(mixup_alpha, mixup_alpha).
        mixup_prob: the probability of mixing a batch; one that is not is learned from as it is, without ``clean_lam``.
        block_num: blocks along a side; one of these is drawn for each batch.
        n_labels: 2 shows one of the images in each block; 3 also both, by half; 4 both, by one third or two.
        beta: weight of smoothness.
        gamma: weight of smoothness of the pictures, as a share of beta.
        eta: weight of lam.
        neigh_size: side in pixels of the windows by whose means pictures are compared; at most what divides a block.
        transport: whether salient blocks are moved to where they are visible.
        t_size: side of the blocks that are moved, in pixels; at most what divides a block, or -1 for the block itself.
        t_eps: what it costs to move.
        solver: "swap" finds labels as the authors do, by alpha-beta swap of cut-off integers; "exact" the cheapest.
        clean_lam: above 0 the images are also learned from unmixed, and the network looks at them in training mode;
            at 1 with the weight that makes their cross-entropy comparable with a mean over classes (`criterion: bce`).
        adv_p: the probability of adding adversarial noise to the images of a batch, and to their partners.
        adv_eps: the most that it adds to a pixel, of 255.
    """

    label = "PuzzleMix"
    source = "Kim et al., 2020"
    defaults = "the README of snu-mllab/PuzzleMix, its commands for CIFAR-100"
    draws = "lam and a number of blocks for each batch"
    asks = "the gradient of the images"
    passes = 1.67
    poll: Poll

    def __init__(
        self,
        *,
        mixup_alpha: float = 1.0,
        mixup_prob: float = 1.0,
        block_num: tuple[int, ...] = (2, 4, 8, 16),
        n_labels: int = 3,
        beta: float = 1.2,
        gamma: float = 0.5,
        eta: float = 0.2,
        neigh_size: int = 4,
        transport: bool = True,
        t_size: int = 4,
        t_eps: float = 0.8,
        solver: Literal["swap", "exact"] = "swap",
        clean_lam: float = 0.0,
        adv_p: float = 0.0,
        adv_eps: float = 10.0,
    ) -> None:
        super().__init__()
        if mixup_alpha == 0:
            raise ValueError(
                f"mixup_alpha is {mixup_alpha}: images are mixed by their saliency whatever lam is; take mixup_prob 0 "
                f"to mix nothing"
            )
        if not block_num:
            raise ValueError("block_num is empty: it must hold at least one number of blocks")
        if t_size < 1 and t_size != -1:
            raise ValueError(f"t_size is {t_size}: it must be at least 1, in pixels, or -1 for the blocks of the mask")
        if t_eps <= 0:
            raise ValueError(f"t_eps is {t_eps}: it must be above 0; take transport false to leave blocks in place")
        self.mixup_alpha = check_alpha(mixup_alpha, option="mixup_alpha")
        self.mixup_prob = check_prob(mixup_prob, option="mixup_prob")
        self.objective = Objective(
            n_labels=n_labels, beta=beta, gamma=gamma, eta=eta, neigh_size=neigh_size, solver=solver
        )
        self.block_num = [self.objective.check_blocks(blocks) for blocks in block_num]
        self.transport = transport
        self.t_size = t_size
        self.t_eps = check_weight("t_eps", t_eps)
        self.clean_lam = check_weight("clean_lam", clean_lam)
        self.adv_p = check_prob(adv_p, option="adv_p")
        self.adv_eps = check_weight("adv_eps", adv_eps, most=255) / 255
        self.moves_statistics = clean_lam > 0
        self.poll = Poll()

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch.

        Raises:
            ValueError: images are not square, or their side is no multiple of a number of blocks.
            FloatingPointError: the gradient of the network is not finite.
        """
        self._check_images(batch.x)
        draws = self.draw(len(batch.x))
        if not draws.mixed:
            return Mixed(batch.x, batch.y)
        (partners,) = beside(batch.x, draws.partners)
        noise = self.draw_noise(batch.x) if any(draws.noisy) else None
        gradient, clean = clean_gradient(net, batch.x if noise is None else batch.x + noise, batch.y, self.clean_lam)
        if noise is None:
            first = second = batch.x
        else:
            noise = draws.strength * against(noise, gradient, self.adv_eps)
            first, second = (
                (batch.x + noise).clamp(0, 1).to(batch.x.dtype) if noisy else batch.x for noisy in draws.noisy
            )
        share, moved = self.solve(batch.x, partners, magnitude(gradient), draws.blocks, draws.lam)
        x = assemble(first, second, partners, share, moved)
        y = soft_labels(batch.y, partners, pair(share.mean((1, 2))))
        return Mixed(x, y) if clean is None else WithClean(x, y, clean)

    def draw(self, count: int) -> Draws:
        """All that is random in the mix of so many images, but for noise."""
        uniform = torch.rand(4, generator=self.generator).tolist()
        return Draws(
            mixed=uniform[0] < self.mixup_prob,
            blocks=self.block_num[int(torch.randint(len(self.block_num), (), generator=self.generator))],
            lam=float(draw_lam(1, 2, self.mixup_alpha, self.generator)[0, 0]),
            partners=draw_partners(count, 2, self.generator),
            noisy=(uniform[1] < self.adv_p, uniform[2] < self.adv_p),
            strength=uniform[3],
        )

    def draw_noise(self, x: Tensor) -> Tensor:
        """Noise of at most `adv_eps` that keeps images in [0, 1], laid out in memory as ``x``."""
        (uniform,) = beside(x, torch.rand(x.shape, generator=self.generator))
        drawn = torch.empty_like(x).copy_(uniform)
        return (x + self.adv_eps * (2 * drawn - 1)).clamp(0, 1) - x

    def solve(
        self, x: Tensor, partners: Tensor, saliency: Tensor, blocks: int, lam: float
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """How much each block shows of the image itself, (N, T, T), and which blocks it shows, as `assemble` asks.

        Args:
            x: (N, C, H, H) images in [0, 1].
            partners: (N, 2) indices into the batch; column 0 is the image itself.
            saliency: (N, H, H).
            blocks: along the side of the grid whose labels are sought.
            lam: of the whole batch.

        Raises:
            FloatingPointError: the saliency is not finite.
        """
        saliency = saliency.float()
        coarse = block_saliency(saliency, blocks)
        if not self.poll(coarse.sum().isfinite()):
            raise FloatingPointError(DIVERGED)
        labels = self.objective.labels(x, partners, coarse, lam, self.poll)
        side = self._side(x.shape[2], blocks)
        (shares,) = beside(x, torch.linspace(1, 0, self.objective.n_labels, dtype=torch.float64).float())
        share = same_block(shares[labels], side)
        if not self.transport:
            own = torch.arange(side**2, device=x.device).expand(len(x), -1)
            return share, (own, own)
        fine = block_saliency(saliency, side)
        visible = torch.cat([share > 0, share < 1])
        moved = sources(torch.cat([fine, fine[partners[:, 1]]]), visible, self.t_eps, self.poll)
        return share, (moved[: len(x)], moved[len(x) :])

    def notes(self) -> Mapping[str, float | str]:
        """What its steps cost; how often this process asked the device for a value, as a solver has to."""
        return gradient_costs(self.clean_lam) | {"polls": self.poll.count}

    def _side(self, size: int, blocks: int) -> int:
        """How many of the blocks that are moved there are along a side."""
        side = size // blocks
        return size // (divisor(side, self.t_size) if self.transport and self.t_size > 0 else side)

    def _check_images(self, x: Tensor) -> None:
        check_grids(x, "block_num", self.block_num, method="puzzlemix")
        width = x.shape[3]
        for blocks in self.block_num:
            if self.transport and self._side(width, blocks) > MOST_MOVED:
                raise ValueError(
                    f"t_size is {self.t_size}: of {width} pixels that leaves more than {MOST_MOVED} blocks a side to "
                    f"move, far more than the authors ever move; take -1, which moves the blocks themselves"
                )


def against(noise: Tensor, gradient: Tensor, most: float) -> Tensor:
    """The noise, moved up the gradient by a little more than ``most``, and cut off at that; of images in [0, 1]."""
    return (noise + (most + 2 / 255) * gradient.sign()).clamp(-most, most)
