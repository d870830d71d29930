"""Softmax+CAM: each pixel shared out by how much a teacher looks at it; an ablation of TransformMix."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from methods.base import Batch, Mixed, Network, register
from methods.ops import beside, check_alpha, check_choice, draw_lam, draw_partners, pair, soft_labels
from methods.saliency import CamMixer


@register("softmax_cam")
class SoftmaxCAM(CamMixer):
    """Masks are the pixel-wise softmax of the two images' class activation maps (TransformMix paper, section 4.6).

    The paper does not say what weighs the labels, since lam does not enter the mask: ``label_from`` is the choice.

    Args:
        teacher: the trained network whose maps are taken.
        label_from: "mask" weighs labels by the mean of the mask; "lam" by a draw for each image.
        alpha: of Beta(alpha, alpha), from which "lam" draws.
        cam_class: "label" takes the map of the image's label; "prediction" of the class that the teacher predicts,
            for data that it was not trained on.
    """

    label = "Softmax+CAM"
    source = "Cheung & Yeung, 2024, section 4.6"
    defaults = "ours: the paper states none"
    draws = "partners for each image"
    passes = 1.33

    def __init__(
        self,
        teacher: Network,
        *,
        label_from: Literal["mask", "lam"] = "mask",
        alpha: float = 1.0,
        cam_class: Literal["label", "prediction"] = "label",
    ) -> None:
        super().__init__(teacher, cam_class=cam_class)
        self.label_from = check_choice("label_from", label_from, ("mask", "lam"))
        self.alpha = check_alpha(alpha)

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch; each image is shown to the teacher at most once."""
        size = len(batch.x)
        (partners,) = beside(batch.x, draw_partners(size, 2, self.generator))
        mask = share_pixels(self.maps(batch), partners)
        if self.label_from == "mask":
            weights = pair(mask.mean((1, 2, 3)))
        else:
            (weights,) = beside(batch.x, draw_lam(size, 2, self.alpha, self.generator))
        mixed = batch.x[partners[:, 1]].lerp_(batch.x, mask.to(batch.x.dtype))
        return Mixed(mixed, soft_labels(batch.y, partners, weights))


def share_pixels(maps: Tensor, partners: Tensor) -> Tensor:
    """What each image keeps of itself at each pixel, (N, 1, H, W) in [0, 1], by its map and its partner's."""
    # A softmax over two maps is the logistic function of their difference.
    return (maps - maps[partners[:, 1]]).sigmoid()
