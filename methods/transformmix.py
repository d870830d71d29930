"""TransformMix: images moved apart and blended by a module that was taught what a teacher still recognises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from methods.base import Batch, Mixed, Network, register
from methods.ops import beside, check_alpha, check_prob, draw_lam, draw_partners, soft_labels
from methods.policy import SMALLEST, Draws, Form, MixingModule, restored
from methods.saliency import CamMixer


class PolicyMixer(CamMixer):
    """Mixes k images by a `MixingModule`: algorithm 1 of the TransformMix paper, for the method and its ablations.

    Attributes:
        policy: the module; its parameters are what a search learns.

    Args:
        teacher: the trained network whose class activation maps the module sees.
        policy: what `MixingModule.saved` gave; None starts with one that has learned nothing.
        form: what the module is made of; a policy keeps the resolution that it was searched at.
        alpha: lam is drawn for each image from Dirichlet(alpha), which is Beta(alpha, alpha) for two images.
        mix_prob: the probability of mixing an image; one that is not mixed keeps its pixels and its label.
        cam_class: "label" or "prediction", see `CamMixer`.
    """

    def __init__(
        self,
        teacher: Network,
        policy: Mapping[str, Any] | None,
        form: Form,
        *,
        alpha: float,
        mix_prob: float,
        cam_class: Literal["label", "prediction"],
    ) -> None:
        super().__init__(teacher, cam_class=cam_class)
        self.alpha = check_alpha(alpha)
        if alpha == 0:
            raise ValueError(
                f"alpha is {alpha}: images are mixed whatever lam is, so labels alone would not be; "
                f"take mix_prob 0 to mix nothing"
            )
        self.mix_prob = check_prob(mix_prob, option="mix_prob")
        self.policy = MixingModule(form) if policy is None else restored(policy, form)
        self.least = form.k

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch; each image is shown to the teacher at most once.

        Raises:
            ValueError: the batch has fewer than k images.
        """
        draws, chosen = self.draw(batch.x)
        x = self.policy(batch.x, self.maps(batch), draws, fill=net.mean, precision=self.precision)
        y = soft_labels(batch.y, draws.partners, draws.lam)
        # lerp by a weight of 0 or 1 returns one of its ends bit for bit; its result is laid out as batch.x.
        mixed = batch.x.lerp(x.to(batch.x.dtype), chosen[:, None, None, None].to(batch.x.dtype))
        return Mixed(mixed, batch.y.lerp(y, chosen[:, None]))

    def draw(self, x: Tensor) -> tuple[Draws, Tensor]:
        """All that is random in the mix of a batch, and which of its images are mixed, (N,) of 0 and 1."""
        size, k = len(x), self.policy.form.k
        if size < k:
            raise ValueError(f"k is {k}, but the batch size is {size}: take a smaller k or larger batches")
        partners = draw_partners(size, k, self.generator)
        lam = draw_lam(size, k, self.alpha, self.generator)
        z = torch.randn(size, generator=self.generator)
        chosen = (torch.rand(size, generator=self.generator) < self.mix_prob).float()
        *draws, chosen = beside(x, partners, lam, z, chosen)
        return Draws(*draws), chosen


@register("transformmix")
class TransformMix(PolicyMixer):
    """Warps images apart and blends them by learned masks (TransformMix paper, equation 4 and algorithm 1).

    The paper does not state alpha and the probability of mixing: the defaults are ours. It reads z ~ N(0, I) as
    "resized"; here z is one number for each mix.

    Args:
        teacher: the trained network whose maps are taken, and by whose answers a search learns.
        policy: what a search saved; None starts with a module that has learned nothing.
        image_size: side of the images, in pixels; an unlearned module sees maps of this size, or 32 if that is less.
        k: images of a mix.
        alpha: lam is drawn for each image from Dirichlet(alpha), which is Beta(alpha, alpha) for two images.
        mix_prob: the probability of mixing an image; one that is not mixed keeps its pixels and its label.
        cam_class: "label" takes the map of the image's label; "prediction" of the class that the teacher predicts,
            for data that it was not trained on.
        mask_layers: convolutions of the mask network before its last, which is 1x1.
        mask_channels: of each of them.
        mask_kernel: side of each of them, in pixels; odd.
    """

    label = "TransformMix"
    source = "Cheung & Yeung, 2024, section 3"
    defaults = "the paper, section 4.1; for alpha and mix_prob ours"
    draws = "lam for each image"
    passes = 1.33

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
        mask_layers: int = 3,
        mask_channels: int = 32,
        mask_kernel: int = 3,
    ) -> None:
        form = Form(
            k=k,
            size=max(SMALLEST, image_size),
            mask_layers=mask_layers,
            mask_channels=mask_channels,
            mask_kernel=mask_kernel,
        )
        super().__init__(teacher, policy, form, alpha=alpha, mix_prob=mix_prob, cam_class=cam_class)
