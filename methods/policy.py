"""What a search learns: `MixingModule`, which moves the images of a mix apart and shows a part of each.

It is made of a warp and a mask (TransformMix paper, equations 2 to 4), each of which is learned or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from methods.masks import LearnedMask, NoMask, SoftmaxMask
from methods.warps import LearnedWarp, NoWarp

SMALLEST = 32
"""The least `Form.size` of a search: f_s needs 18 pixels, but 8-pixel images are to be mixed too."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a mixing module is made of, but for its weights.

    Attributes:
        k: images of a mix.
        size: side of the maps that a learned warp sees, in pixels; others are resized for it.
        warp: "learned" or "none".
        mask: "learned", "softmax_cam" (from the maps alone) or "none" (the images are added).
        mask_layers: of a learned mask, see `LearnedMask`.
        mask_channels: likewise.
        mask_kernel: likewise.

    Raises:
        ValueError: there can be no such module.
    """

    k: int
    size: int
    warp: str = "learned"
    mask: str = "learned"
    mask_layers: int = 3
    mask_channels: int = 32
    mask_kernel: int = 3

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"k is {self.k}: it must be at least 2; take the method simple to mix nothing")
        for option in ("mask_layers", "mask_channels", "mask_kernel"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is {getattr(self, option)}: it must be at least 1")
        if self.mask_kernel % 2 == 0:
            raise ValueError(f"mask_kernel is {self.mask_kernel}: it must be odd, so that masks keep the image's size")


class Draws(NamedTuple):
    """What is random in a mix: (N, k) ``partners``, (N, k) ``lam``, whose rows sum to 1, and (N,) noise ``z``."""

    partners: Tensor
    lam: Tensor
    z: Tensor


class Parts(NamedTuple):
    """What mixed images are put together from.

    Attributes:
        theta: (N, k, 2, 3), how each image is moved, see `methods.warps.warp`.
        images: the k moved images of each mix, (N, C, H, W) each, as deviations from the fill colour.
        maps: (N, k, H, W), moved likewise; zero outside the frame.
        masks: (N, k, H, W), how much of each image is shown.
    """

    theta: Tensor
    images: Sequence[Tensor]
    maps: Tensor
    masks: Tensor

    def mixed(self, fill: Tensor) -> Tensor:
        """The mixed images, (N, C, H, W), on a ground of the fill colour, (1, C, 1, 1)."""
        # Masks sum to 1, so the colour may be added once instead of to each image. Without masks the deviations are
        # added, which is the addition of normalised images.
        mixed = fill.expand_as(self.images[0])
        for image, mask in zip(self.images, self.masks.unbind(1), strict=True):
            mixed = mixed.addcmul(image, mask[:, None])
        return mixed


class MixingModule(nn.Module):
    """Mixes k images by their class activation maps, at any resolution. Its parameters are what a search learns."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.warp, self.mask = _warp(form), _mask(form)

    def forward(self, x: Tensor, maps: Tensor, draws: Draws, *, fill: Tensor, precision: torch.dtype) -> Tensor:
        """Mixed images, (N, C, H, W); for the arguments see `parts`."""
        return self.parts(x, maps, draws, fill=fill, precision=precision).mixed(fill)

    def parts(self, x: Tensor, maps: Tensor, draws: Draws, *, fill: Tensor, precision: torch.dtype) -> Parts:
        """What the mixed images are put together from.

        Args:
            x: (N, C, H, W) images.
            maps: (N, 1, H, W), their class activation maps.
            draws: whom each is mixed with, and how.
            fill: (1, C, 1, 1), the colour of what lies outside the frame of an image.
            precision: of the networks' convolutions; all else is float32.
        """
        away = x - fill
        images = [away, *(away[partner] for partner in draws.partners[:, 1:].unbind(1))]
        theta, moved, maps = self.warp(images, maps[:, 0][draws.partners], draws.lam, draws.z, precision)
        return Parts(theta, moved, maps, self.mask(maps, draws.lam, precision))

    @property
    def tau(self) -> Tensor | None:
        """The temperature of a learned mask, a scalar on the module's device; None where no mask is learned."""
        return self.mask.temperature.detach() if isinstance(self.mask, LearnedMask) else None

    def saved(self) -> dict[str, Any]:
        """A copy of form, temperature and weights, plain values and tensors, for `restored`. Waits for the device."""
        state = {name: value.clone() for name, value in self.state_dict().items()}
        return {"form": asdict(self.form), "tau": None if self.tau is None else self.tau.item(), "state": state}


def _warp(form: Form) -> nn.Module:
    return LearnedWarp(form.k, form.size) if form.warp == "learned" else NoWarp()


def _mask(form: Form) -> nn.Module:
    if form.mask == "learned":
        return LearnedMask(form.k, layers=form.mask_layers, channels=form.mask_channels, kernel=form.mask_kernel)
    return SoftmaxMask() if form.mask == "softmax_cam" else NoMask()


def restored(saved: Mapping[str, Any], form: Form) -> MixingModule:
    """The module that was `saved`, which keeps the size of maps that it was searched at.

    Raises:
        ValueError: it has another form than ``form``, whose size does not matter; or its search has diverged.
    """
    searched = Form(**saved["form"])
    asked = asdict(replace(form, size=searched.size))
    for name, value in asdict(searched).items():
        if value != asked[name]:
            raise ValueError(
                f"the policy was searched with {name} = {value}, but {asked[name]} is asked for; take one that was "
                f"searched for the same method and options"
            )
    if not all(bool(values.isfinite().all()) for values in saved["state"].values()):
        raise ValueError(
            "the policy has weights that are NaN or infinite: its search diverged in the end; search again"
        )
    # Its first weights are overwritten: whoever draws next should not notice that they were drawn.
    with torch.random.fork_rng(devices=[]):
        module = MixingModule(searched)
    module.load_state_dict(saved["state"])
    return module
