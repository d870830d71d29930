"""Manifold Mixup: weighted sums of two images' hidden features, and of their labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from methods.base import Batch, Mixed, Mixer, Network, register
from methods.ops import beside, blend, check_alpha, check_choice, draw_lam, draw_partners, soft_labels


@dataclass(frozen=True)
class HiddenMixed(Mixed):
    """Images as they were, which are mixed inside the network; gradients reach both partners.

    Attributes:
        stage: name of the submodule whose output is blended.
        partners: (N, 2) indices into the batch; column 0 is the image itself.
        lam: (N, 2), or (1, 2) for the whole batch.
    """

    stage: str
    partners: Tensor
    lam: Tensor
    pictures = None
    replayable = True

    def logits(self, net: nn.Module) -> Tensor:
        """Answers of ``net``, (N, G), where it goes on from the blend of what its stage put out."""

        def mix(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            return blend(out, self.partners, self.lam)

        handle = net.get_submodule(self.stage).register_forward_hook(mix)
        try:
            return super().logits(net)
        finally:
            handle.remove()


@register("manifold_mixup")
class ManifoldMixup(Mixer):
    """Blends two images and their labels, in a layer that is drawn for each batch (Verma et al., 2019).

    As in the authors' code (vikasverma1077/manifold_mixup, supervised), whose layers, alpha and draws are the
    defaults; its loss is ``criterion: bce``.

    Args:
        alpha: lam is drawn from Beta(alpha, alpha); 0 mixes nothing.
        layers: one of these is drawn for each batch: 0 is the image, n the output of the network's ``layer{n}``.
        draw: "batch" draws one lam for the whole batch, as the authors do; "sample" one for each image.
    """

    label = "Manifold Mixup"
    source = "Verma et al., 2019"
    defaults = "the README of vikasverma1077/manifold_mixup, its commands for CIFAR"
    draws = "a layer and lam for each batch"
    asks = "hidden features"

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        layers: tuple[int, ...] = (0, 1, 2),
        draw: Literal["batch", "sample"] = "batch",
    ) -> None:
        super().__init__()
        if not layers or min(layers) < 0:
            raise ValueError(
                f"layers is {list(layers)}: it must hold at least one number, 0 for the image or n for layer n"
            )
        self.alpha = check_alpha(alpha)
        self.layers = layers
        self.draw = check_choice("draw", draw, ("batch", "sample"))

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch, or say where the network is to mix it.

        Raises:
            ValueError: the network has no such layer.
        """
        self._check_stages(net)
        size = len(batch.x)
        layer = self.layers[int(torch.randint(len(self.layers), (), generator=self.generator))]
        partners = draw_partners(size, 2, self.generator)
        lam = draw_lam(size if self.draw == "sample" else 1, 2, self.alpha, self.generator)
        partners, lam = beside(batch.x, partners, lam)
        y = soft_labels(batch.y, partners, lam)
        if layer == 0:
            return Mixed(blend(batch.x, partners, lam), y)
        return HiddenMixed(batch.x, y, f"layer{layer}", partners, lam)

    def _check_stages(self, net: Network) -> None:
        names = [name for name, _ in cast("nn.Module", net).named_children()]
        for layer in self.layers:
            if layer and f"layer{layer}" not in names:
                there = ["0", *(name.removeprefix("layer") for name in names if re.fullmatch(r"layer[1-9]\d*", name))]
                raise ValueError(
                    f"layers holds {layer}, but the network has no layer{layer}; take of {', '.join(there)} (0 is the "
                    f"image)"
                )
