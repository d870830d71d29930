"""Which image of a mix is shown at each pixel: by a mask that a network predicts, by the maps alone, or all of them."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from methods.ops import computing_in, planes, rectified

LOWEST_TAU = 0.01
"""The least temperature; the paper learns 0.08."""


class LearnedMask(nn.Module):
    """The mask network f_m: convolutions, and a softmax over the images at a learned temperature (equation 3).

    Attributes:
        tau: the temperature as it is learned, a scalar.

    Args:
        k: images of a mix.
        layers: convolutions before the last, which is 1x1.
        channels: of each of them.
        kernel: side of each of them, in pixels; odd.
    """

    def __init__(self, k: int, *, layers: int, channels: int, kernel: int) -> None:
        super().__init__()
        convolution = partial(nn.Conv2d, kernel_size=kernel, padding=kernel // 2)
        widths = [2 * k - 1, *[channels] * layers]
        self.layers = nn.ModuleList(convolution(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.out = nn.Conv2d(channels, k, 1)
        self.tau = nn.Parameter(torch.ones(()))

    @property
    def temperature(self) -> Tensor:
        """`tau`, or `LOWEST_TAU` where it has fallen below."""
        # The gradient passes the bound: without one below it, weight decay would keep tau there for good.
        return self.tau.detach().clamp_min(LOWEST_TAU) + (self.tau - self.tau.detach())

    def forward(self, maps: Tensor, lam: Tensor, precision: torch.dtype) -> Tensor:
        """Masks, (N, k, H, W) float32 in [0, 1], which sum to 1 at each pixel.

        Args:
            maps: (N, k, H, W), at any resolution.
            lam: (N, k).
            precision: of the convolutions.
        """
        out = planes(maps, lam[:, :-1])
        with computing_in(precision, maps):
            for layer in self.layers:
                out = _rectified(layer(out))
            out = self.out(out)
        masks: Tensor = (out.float() / self.temperature).softmax(1)
        return masks


def _rectified(x: Tensor) -> Tensor:
    """As `rectified`, but without a gradient NaN may become 0 too: a policy with such weights is refused."""
    if x.dtype == torch.bfloat16 and not x.requires_grad and x.device.type == "cpu":
        # Half the time: as integers the numbers have the same signs, and are not taken to float32 and back.
        return x.view(torch.int16).clamp_min_(0).view(torch.bfloat16)
    return rectified(x)


class SoftmaxMask(nn.Module):
    """Shares out each pixel by the softmax of the maps, as Softmax+CAM does."""

    def forward(self, maps: Tensor, lam: Tensor, precision: torch.dtype) -> Tensor:
        """Masks, (N, k, H, W) in [0, 1], which sum to 1 at each pixel."""
        return maps.softmax(1)


class NoMask(nn.Module):
    """Shows every image whole, so that they are added."""

    def forward(self, maps: Tensor, lam: Tensor, precision: torch.dtype) -> Tensor:
        """Ones, (N, k, H, W)."""
        return torch.ones_like(maps)
