"""Mixup: weighted sums of two images and of their labels."""

from __future__ import annotations

from typing import Literal

from methods.base import Batch, Mixed, Mixer, Network, register
from methods.ops import beside, blend, check_alpha, check_choice, draw_lam, draw_partners, soft_labels


@register("mixup")
class Mixup(Mixer):
    """Blends each image and its label with those of another image of the batch (Zhang et al., 2018).

    As in the authors' code (facebookresearch/mixup-cifar10) lam is not folded to at least 1/2, and every batch is
    mixed.

    Args:
        alpha: lam is drawn from Beta(alpha, alpha); 0 mixes nothing.
        draw: "batch" draws one lam for the whole batch, as the authors do; "sample" one for each image.
    """

    label = "Mixup"
    source = "Zhang et al., 2018"
    defaults = "main.py of facebookresearch/mixup-cifar10"
    draws = "lam for each batch"

    def __init__(self, *, alpha: float = 1.0, draw: Literal["batch", "sample"] = "batch") -> None:
        super().__init__()
        self.alpha = check_alpha(alpha)
        self.draw = check_choice("draw", draw, ("batch", "sample"))

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch."""
        size = len(batch.x)
        partners = draw_partners(size, 2, self.generator)
        lam = draw_lam(size if self.draw == "sample" else 1, 2, self.alpha, self.generator)
        partners, lam = beside(batch.x, partners, lam)
        return Mixed(blend(batch.x, partners, lam), soft_labels(batch.y, partners, lam))
