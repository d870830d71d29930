"""LR: two images moved apart, one to the left and one to the right; an ablation of TransformMix."""

from __future__ import annotations

import torch
from torch import Tensor

from methods.base import Batch, Mixed, Mixer, Network, register
from methods.ops import beside, check_alpha, draw_lam, draw_partners, pair, soft_labels


@register("lr")
class LR(Mixer):
    """Shows the left part of one image beside the right part of another (TransformMix paper, section 4.6).

    Whole images are translated and added: the first to the right, the second to the left, as in the paper. Read
    literally it moves the first by lam W, which leaves a strip (1 - lam) W of it visible under the label weight lam.
    Here the strip is lam W wide, in whole columns, and label weights are the visible shares.

    Args:
        alpha: lam is drawn for each image from Beta(alpha, alpha); 0 mixes nothing.
    """

    label = "LR"
    source = "Cheung & Yeung, 2024, section 4.6"
    defaults = "ours: the paper states none"
    draws = "lam for each image"

    def __init__(self, *, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_alpha(alpha)

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch."""
        size, width = len(batch.x), batch.x.shape[-1]
        partners = draw_partners(size, 2, self.generator)
        lam = draw_lam(size, 2, self.alpha, self.generator)
        columns = (lam[:, 0] * width).round().long()
        partners, columns, weights = beside(batch.x, partners, columns, pair(columns / width))
        return Mixed(move_apart(batch.x, partners, columns), soft_labels(batch.y, partners, weights))


def move_apart(x: Tensor, partners: Tensor, columns: Tensor) -> Tensor:
    """Each image moved to the right and its partner to the left until they touch, (N, C, H, W).

    Args:
        x: (N, C, H, W).
        partners: (N, 2) indices into the batch.
        columns: (N,) int64, how many columns of the image itself stay visible, from 0 to W.
    """
    # With the partner laid left of the image, what the frame shows is the window that starts at column `columns`.
    windows = torch.cat([x[partners[:, 1]], x], dim=3).unfold(3, x.shape[3], 1)
    return windows[torch.arange(len(x), device=x.device), :, :, columns]
