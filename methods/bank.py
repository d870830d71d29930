"""Mixed images that are made once and stored: what a bank holds."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from methods.base import Batch


class Mixes(NamedTuple):
    """Mixed images, and what is known of them.

    Attributes:
        x: (M, C, H, W) uint8.
        lam: (M, k), how much of each of its images a mix should show.
        classes: (M, k) int64, of these images.
        sources: (M, k) int64, their numbers; -1 where these are not known.
    """

    x: Tensor
    lam: Tensor
    classes: Tensor
    sources: Tensor


@runtime_checkable
class Maker(Protocol):
    """A mixer whose mixes can be stored.

    Attributes:
        k: images of a mix.
        step_counts: how many mixes so far were good enough after so many steps, int64; at 0, those that never were.
    """

    k: int
    step_counts: Tensor

    def finished(self, batch: Batch) -> Mixes:
        """Those mixes of a batch that are good enough; ``sources`` are places in the batch."""
        ...


def empty(size: int, k: int, *, channels: int, side: int) -> Mixes:
    """Room for so many mixes of k images: black ones, each of class 0 and image 0."""
    x = torch.zeros(size, channels, side, side, dtype=torch.uint8)
    lam = torch.full((size, k), 1 / k)
    numbers = torch.zeros(size, k, dtype=torch.int64)
    return Mixes(x, lam, numbers, numbers.clone())


def as_bytes(x: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, cut off at the next whole level below as the authors' export does, not rounded."""
    return (x.double() * 255).clamp(0, 255).to(torch.uint8)
