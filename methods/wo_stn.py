"""TransformMix without its spatial transformer: images blended by learned masks where they are; an ablation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from methods.base import Network, register
from methods.ops import check_choice
from methods.policy import SMALLEST, Form
from methods.transformmix import PolicyMixer


@register("wo_stn")
class WithoutSTN(PolicyMixer):
    """Blends images by learned masks, without moving them (TransformMix paper, section 4.6).

    The paper says both that this one lacks the learned transformations and that its mask is computed as in
    Softmax+CAM, which would leave nothing to learn; yet table 5 gives the two different accuracies. ``mask`` is the
    choice.

    Args:
        teacher: the trained network whose maps are taken, and by whose answers a search learns.
        policy: what a search saved; None starts with a module that has learned nothing.
        image_size: side of the images, in pixels.
        mask: "learned" by the mask network, from unwarped maps; "softmax_cam" by the softmax of the maps.
        k: images of a mix.
        alpha: lam is drawn for each image from Dirichlet(alpha), which is Beta(alpha, alpha) for two images.
        mix_prob: the probability of mixing an image; one that is not mixed keeps its pixels and its label.
        cam_class: "label" takes the map of the image's label; "prediction" of the class that the teacher predicts,
            for data that it was not trained on.
        mask_layers: convolutions of the mask network before its last, which is 1x1.
        mask_channels: of each of them.
        mask_kernel: side of each of them, in pixels; odd.
    """

    label = "w/o STN"
    source = "Cheung & Yeung, 2024, section 4.6"
    defaults = "those of TransformMix"
    draws = "lam for each image"
    passes = 1.33

    def __init__(
        self,
        teacher: Network,
        policy: Mapping[str, Any] | None,
        image_size: int,
        *,
        mask: Literal["learned", "softmax_cam"] = "learned",
        k: int = 2,
        alpha: float = 1.0,
        mix_prob: float = 1.0,
        cam_class: Literal["label", "prediction"] = "label",
        mask_layers: int = 3,
        mask_channels: int = 32,
        mask_kernel: int = 3,
    ) -> None:
        form = Form(
            k=k,
            size=max(SMALLEST, image_size),
            warp="none",
            mask=check_choice("mask", mask, ("learned", "softmax_cam")),
            mask_layers=mask_layers,
            mask_channels=mask_channels,
            mask_kernel=mask_kernel,
        )
        super().__init__(teacher, policy, form, alpha=alpha, mix_prob=mix_prob, cam_class=cam_class)
