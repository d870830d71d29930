"""Co-Mixup: as many collages as images, in which what matters of each is seen, and no two are of the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from methods.base import Batch, Mixed, Mixer, Network, register
from methods.blocks import DIVERGED, block_saliency, check_grids, same_block
from methods.collage import Collages, Single, peak_positions
from methods.ops import Poll, beside, check_weight, draw_lam, laid_out_as, unhalved
from methods.potts import Integers
from methods.saliency import WithClean, clean_gradient, gradient_costs, magnitude


@dataclass(frozen=True)
class Draws:
    """All that is random in the mix of a batch.

    Attributes:
        blocks: side of the grid, in blocks.
        prior: (N,) float32, how likely each image is; those of a partition sum to 1.
        labels: (N, blocks * blocks) int64, which image of its partition each block shows at first.
    """

    blocks: int
    prior: Tensor
    labels: Tensor


@register("comixup")
class CoMixup(Mixer):
    """Makes of each partition of a batch as many collages of salient blocks, unlike each other (Kim et al., 2021).

    Follows the authors' code for CIFAR and Tiny-ImageNet (snu-mllab/Co-Mixup at 2a76816), and gives what that gives,
    its integers included: an edge between blocks costs a whole number of thousandths, so at 16 blocks a side the
    published m_beta counts as 0.256, and below 0.256 as nothing. Where that code fails it does not: for a last batch
    that is smaller, an image without any saliency, and images whose peaks are all in one place.

    Args:
        mixup_alpha: how likely images are is drawn for each partition from a Dirichlet distribution of this parameter.
        m_block_num: blocks along a side; one of these is drawn for each batch.
        m_part: images of a partition; the last one of a batch may have fewer.
        m_beta: weight of smoothness.
        m_gamma: weight of what other collages show.
        m_thres: how much other collages may show of an image at no cost, as a share of the image.
        m_thres_type: "hard" counts all that they show where it is more than that; "soft" what is above it.
        m_eta: weight of how likely images are.
        m_omega: how much images whose salient windows are far apart are drawn to each other, in [0, 1].
        set_resolve: whether collages of the same images are parted before the last sweep.
        m_niter: sweeps over the collages, at most.
        clean_lam: above 0 the images are also learned from unmixed, and the network looks at them in training mode;
            at 1 with the weight that makes their cross-entropy comparable with a mean over classes (`criterion: bce`).
    """

    label = "Co-Mixup"
    source = "Kim et al., 2021"
    defaults = "the README of snu-mllab/Co-Mixup, its command for CIFAR-100"
    draws = "weights of the images for each partition"
    asks = "the gradient of the images"
    passes = 2.0
    poll: Poll

    def __init__(
        self,
        *,
        mixup_alpha: float = 2.0,
        m_block_num: tuple[int, ...] = (4,),
        m_part: int = 20,
        m_beta: float = 0.32,
        m_gamma: float = 1.0,
        m_thres: float = 0.83,
        m_thres_type: Literal["hard", "soft"] = "hard",
        m_eta: float = 0.05,
        m_omega: float = 0.001,
        set_resolve: bool = True,
        m_niter: int = 4,
        clean_lam: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < mixup_alpha < np.inf:
            raise ValueError(f"mixup_alpha is {mixup_alpha}: it must be a finite number above 0")
        if m_part < 2:
            raise ValueError(f"m_part is {m_part}: a partition must have at least 2 images")
        if not m_block_num:
            raise ValueError("m_block_num is empty: it must hold at least one number of blocks")
        self.mixup_alpha = mixup_alpha
        self.m_part = m_part
        self.collages = Collages(
            beta=m_beta,
            gamma=m_gamma,
            thres=m_thres,
            thres_type=m_thres_type,
            eta=m_eta,
            omega=m_omega,
            resolve=set_resolve,
            niter=m_niter,
        )
        self.m_block_num = [self.collages.check_blocks(blocks, m_part) for blocks in m_block_num]
        self.clean_lam = check_weight("clean_lam", clean_lam)
        self.moves_statistics = clean_lam > 0
        self.poll = Poll()

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch.

        Raises:
            ValueError: images are not square, or their side is no multiple of a number of blocks.
            FloatingPointError: the gradient of the network is not finite.
        """
        check_grids(batch.x, "m_block_num", self.m_block_num, method="comixup")
        draws = self.draw(len(batch.x))
        gradient, clean = clean_gradient(net, batch.x, batch.y, self.clean_lam)
        (shown,) = beside(batch.x, self.solve(magnitude(gradient), draws))
        x, y = assemble(batch.x, shown), shown_labels(batch.y, shown)
        return Mixed(x, y) if clean is None else WithClean(x, y, clean)

    def draw(self, count: int) -> Draws:
        """All that is random in the mix of so many images."""
        choice = int(torch.randint(len(self.m_block_num), (), generator=self.generator))
        blocks = self.m_block_num[choice]
        sizes = [min(self.m_part, count - start) for start in range(0, count, self.m_part)]
        prior = [draw_lam(1, size, self.mixup_alpha, self.generator)[0] for size in sizes]
        labels = [torch.randint(size, (size, blocks**2), generator=self.generator) for size in sizes]
        return Draws(blocks, torch.cat(prior), torch.cat(labels))

    def solve(self, saliency: Tensor, draws: Draws) -> Tensor:
        """The two images of the batch that each block shows by half, or twice the same: (N, B, B, 2) int64 on the CPU.

        ``saliency`` is (N, H, H). Its values are fetched from the device, once: what is to be decided is small.

        Raises:
            FloatingPointError: the saliency is not finite.
        """
        coarse = block_saliency(saliency, draws.blocks).flatten(1)
        fetched = self.poll.values(torch.cat([coarse, peak_positions(saliency).to(coarse)], 1))
        if not fetched.isfinite().all():
            raise FloatingPointError(DIVERGED)
        whole = len(fetched) // self.m_part * self.m_part
        parts = [slice(0, whole), slice(whole, len(fetched))]
        shown = [self._solve(fetched[part], draws.prior[part], draws.labels[part]) + part.start for part in parts]
        return torch.cat(shown).view(len(fetched), draws.blocks, draws.blocks, 2)

    def _solve(self, fetched: Tensor, prior: Tensor, labels: Tensor) -> Tensor:
        """`solve` for partitions that are all as large: (N, B * B, 2); images count from the first of these."""
        size = min(self.m_part, len(fetched))
        if size == 0:
            return labels[..., None].expand(-1, -1, 2)
        parts = fetched.view(-1, size, fetched.shape[1]).numpy()
        blocks = labels.shape[1]
        shares = self.collages.solve(
            parts[..., :blocks],
            parts[..., blocks:].astype(np.int64),
            prior.view(-1, size).numpy(),
            labels.view(-1, size, blocks).numpy(),
        )
        first = np.arange(0, len(fetched), size)[:, None, None, None]
        return torch.from_numpy((halves(shares) + first).reshape(-1, blocks, 2))

    def notes(self) -> Mapping[str, float | str]:
        """What its steps cost; how often the device was asked for values, as labels are found on the CPU."""
        return gradient_costs(self.clean_lam) | {"polls": self.poll.count}


def halves(shares: Single) -> Integers:
    """The two images that each block shows by half, or twice the same: (..., 2) of shares (..., m) of 0, 0.5 or 1."""
    last = shares.shape[-1] - 1 - shares[..., ::-1].argmax(-1)
    return np.stack([shares.argmax(-1), last], -1)


def assemble(x: Tensor, shown: Tensor) -> Tensor:
    """Collages, (N, C, H, H), laid out in memory as ``x``, of images (N, C, H, H).

    ``shown`` is (N, B, B, 2), the two images that each block shows by half.
    """
    first, second = (same_block(which, x.shape[2]) for which in shown.unbind(3))
    pixels, place = x.permute(0, 2, 3, 1), torch.arange(x.shape[2], device=x.device)
    mixed = pixels[first, place[:, None], place].add_(pixels[second, place[:, None], place]).mul_(0.5)
    return laid_out_as(x, mixed.permute(0, 3, 1, 2))


def shown_labels(y: Tensor, shown: Tensor) -> Tensor:
    """Labels of collages, (N, G) float32, of labels (N, G): the mean of those of all that is shown."""
    places = shown.flatten(1)
    each = y.new_full(places.shape, 1 / places.shape[1], dtype=torch.float32)
    shares = each.new_zeros(len(y), len(y)).scatter_add_(1, places, each)
    with unhalved(y):  # a matrix product that it would run in bfloat16
        return shares @ y.float()
