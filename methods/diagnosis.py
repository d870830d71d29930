"""Whether a mixing module has collapsed: its images may have left the frame, its masks may not follow lam.

A warp that is the same for every pair is no bad sign: that is what good searches find.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.policy import Draws, Form, Parts

POINTS = 32
"""A side of the grid of points by which the shares of a frame are told."""


@runtime_checkable
class Diagnosable(Protocol):
    """A policy that can say what it is made of, and what it puts mixed images together from."""

    form: Form

    def parts(self, x: Tensor, maps: Tensor, draws: Draws, *, fill: Tensor, precision: torch.dtype) -> Parts:
        """See `methods.policy.MixingModule.parts`."""
        ...


class Signs(NamedTuple):
    """What a diagnosis needs of a mixed batch: (N, k) each, by mix and image; the parts themselves would fill memories.

    Attributes:
        in_frame: see `in_frame`.
        shown: the mean of each mask.
        lam: as drawn.
    """

    in_frame: Tensor
    shown: Tensor
    lam: Tensor


def signs(parts: Parts, draws: Draws) -> Signs:
    """The signs of one batch."""
    return Signs(in_frame(parts.theta), parts.masks.mean((2, 3)), draws.lam)


def in_frame(theta: Tensor) -> Tensor:
    """How much image and frame have of each other, (N, k) in [0, 1]: the less of two shares.

    The share of the image that lies in the frame is small where the image is moved out, or enlarged beyond it; the
    share of the frame that shows the image also where the image is shrunk to a dot. Both are 1 where it stays in place.

    Args:
        theta: (N, k, 2, 3), see `methods.warps.warp`.
    """
    count, k = theta.shape[:2]
    places = F.affine_grid(theta.flatten(0, 1), [count * k, 1, POINTS, POINTS], align_corners=False)
    of_frame = (places.abs() <= 1).all(-1).float().mean((1, 2)).view(count, k)
    # Each part of the frame that shows the image shows |det| times as much of it.
    (a, b), (c, d) = ((row[..., 0], row[..., 1]) for row in theta.unbind(2))
    of_image = of_frame * (a * d - b * c).abs()
    return torch.minimum(of_frame, of_image)


def follows(shown: Tensor, lam: Tensor) -> Tensor:
    """By how much the means of masks, (N, k), grow with lam, (N, k): the least slope of the k images, a scalar.

    1 where a mask shows as much of its image as the label says, 0 where it shows the same whatever lam is. A
    correlation would not tell: masks that hardly move can follow lam closely.
    """
    shown, lam = shown - shown.mean(0), lam - lam.mean(0)
    slope: Tensor = (shown * lam).sum(0) / lam.square().sum(0).clamp_min(torch.finfo(lam.dtype).tiny)
    return slope.amin()


@contextlib.contextmanager
def watched(policy: nn.Module) -> Iterator[list[Signs]]:
    """Inside, each batch that a policy mixes leaves its signs; of one that is not `Diagnosable` there are none."""
    seen: list[Signs] = []
    if not isinstance(policy, Diagnosable):
        yield seen
        return
    parts = policy.parts

    def look(x: Tensor, maps: Tensor, draws: Draws, **how: Any) -> None:
        seen.append(signs(parts(x, maps, draws, **how), draws))

    # The parts are made a second time, but the teacher is not asked for its maps again.
    hook = policy.register_forward_hook(lambda _, args, named, __: look(*args, **named), with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def diagnosis(policy: nn.Module, seen: Sequence[Signs]) -> dict[str, float]:
    """What the signs of some batches say of what a policy has learned, and of nothing else. Waits for the device.

    Returns:
        ``in_frame``: of a learned warp, `in_frame` of the image of which the least is left, in the mean of all mixes.
        ``mask_slope``: of a learned mask, how it `follows` lam.
    """
    if not isinstance(policy, Diagnosable):
        return {}
    within, shown, lam = (torch.cat(one) for one in zip(*seen, strict=True))
    said = {"in_frame": within.mean(0).amin().item()} if policy.form.warp == "learned" else {}
    return said | ({"mask_slope": follows(shown, lam).item()} if policy.form.mask == "learned" else {})
