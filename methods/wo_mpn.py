"""TransformMix without its mask network: images moved apart and added; an ablation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from methods.base import Network, register
from methods.policy import SMALLEST, Form
from methods.transformmix import PolicyMixer


@register("wo_mpn")
class WithoutMPN(PolicyMixer):
    """Warps images apart and adds them, without masks (TransformMix paper, section 4.6).

    "Stacked together directly" is read as the addition of normalised images: deviations from the mean colour are added
    and not clipped, so mixed images may leave [0, 1].

    Args:
        teacher: the trained network whose maps are taken, and by whose answers a search learns.
        policy: what a search saved; None starts with a module that has learned nothing.
        image_size: side of the images, in pixels; an unlearned module sees maps of this size, or 32 if that is less.
        k: images of a mix.
        alpha: lam is drawn for each image from Dirichlet(alpha), which is Beta(alpha, alpha) for two images.
        mix_prob: the probability of mixing an image; one that is not mixed keeps its pixels and its label.
        cam_class: "label" takes the map of the image's label; "prediction" of the class that the teacher predicts,
            for data that it was not trained on.
    """

    label = "w/o MPN"
    source = "Cheung & Yeung, 2024, section 4.6"
    defaults = "those of TransformMix"
    draws = "lam for each image"
    passes = 1.33
    in_range = False

    def __init__(
        self,
        teacher: Network,
        policy: Mapping[str, Any] | None,
        image_size: int,
        *,
        k: int = 2,
        alpha: float = 1.0,
        mix_prob: float = 1.0,
        cam_class: Literal["label", "prediction"] = "label",
    ) -> None:
        form = Form(k=k, size=max(SMALLEST, image_size), mask="none")
        super().__init__(teacher, policy, form, alpha=alpha, mix_prob=mix_prob, cam_class=cam_class)
