"""CutMix: a box of one image pasted into another."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from methods.base import Batch, Mixed, Mixer, Network, register
from methods.boxes import box_around, draw_centres, draw_kept, paste, share_outside
from methods.ops import beside, check_alpha, check_choice, check_prob, draw_partners, pair, soft_labels


@register("cutmix")
class CutMix(Mixer):
    """Pastes a box of another image of the batch at the same place (Yun et al., 2019).

    The box is clipped at the border, so labels are weighed by the area that is visible and not by the drawn lam, as
    the authors' code (clovaai/CutMix-PyTorch) has done since July 2019.

    Args:
        alpha: lam, the share that stays before clipping, is drawn from Beta(alpha, alpha); 0 mixes nothing.
        prob: the probability of mixing a batch, or an image where ``draw`` is "sample".
        draw: "batch" draws one lam and one box for the whole batch, as the authors do; "sample" one for each image.
    """

    label = "CutMix"
    source = "Yun et al., 2019"
    defaults = "the README of clovaai/CutMix-PyTorch, its command for ImageNet"
    draws = "lam and a box for each batch"

    def __init__(self, *, alpha: float = 1.0, prob: float = 1.0, draw: Literal["batch", "sample"] = "batch") -> None:
        super().__init__()
        self.alpha = check_alpha(alpha)
        self.prob = check_prob(prob)
        self.draw = check_choice("draw", draw, ("batch", "sample"))

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch."""
        size, _, height, width = batch.x.shape
        partners = draw_partners(size, 2, self.generator)
        boxes = self.draw_boxes(size if self.draw == "sample" else 1, height, width)
        partners, weights = beside(batch.x, partners, pair(share_outside(boxes, height, width)))
        return Mixed(paste(batch.x, partners, boxes), soft_labels(batch.y, partners, weights))

    def draw_boxes(self, count: int, height: int, width: int) -> Tensor:
        """(count, 4) boxes on the CPU, see `box_around`; empty where nothing is to be mixed."""
        kept = draw_kept(count, self.alpha, self.prob, self.generator)
        return box_around(kept, draw_centres(count, height, width, self.generator), height, width)
