"""Where the images of a mix are moved to: by an affine warp that a network predicts, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.ops import computing_in, planes, rectified

Warped = tuple[Tensor, Sequence[Tensor], Tensor]
"""``theta`` (N, k, 2, 3), the k moved images of each mix, (N, C, H, W) each, and the moved maps (N, k, H, W)."""


class LearnedWarp(nn.Module):
    """The localisation network f_s (TransformMix paper, equation 2), and the warp that it predicts for each image.

    Jaderberg et al. (2015) in the small form of PyTorch's tutorial. It starts at the identity.

    Args:
        k: images of a mix.
        size: side of the maps that it sees, at least 18 pixels; others are resized for it, as in appendix A.4.
    """

    def __init__(self, k: int, size: int) -> None:
        super().__init__()
        self.size = size
        side = ((size - 6) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(2 * k, 8, 7)
        self.conv2 = nn.Conv2d(8, 10, 5)
        self.fc1 = nn.Linear(10 * side * side, 32)
        self.fc2 = nn.Linear(32, 6 * k)
        nn.init.zeros_(self.fc2.weight)
        with torch.no_grad():
            self.fc2.bias.copy_(torch.eye(2, 3).flatten().repeat(k))

    def forward(self, images: Sequence[Tensor], maps: Tensor, lam: Tensor, z: Tensor, precision: torch.dtype) -> Warped:
        """Move the k images (N, C, H, W) of each mix and their maps (N, k, H, W), at their own resolution."""
        theta = self.locate(maps, lam, z, precision)
        return theta, *warp(images, maps, theta)

    def locate(self, maps: Tensor, lam: Tensor, z: Tensor, precision: torch.dtype) -> Tensor:
        """The affine parameters, (N, k, 2, 3) float32.

        Args:
            maps: (N, k, H, W), at any resolution.
            lam: (N, k).
            z: (N,), the noise.
            precision: of the convolutions.
        """
        if maps.shape[2:] != (self.size, self.size):
            maps = F.interpolate(maps, size=(self.size, self.size), mode="bilinear", align_corners=False)
        out = planes(maps, torch.cat([lam[:, :-1], z[:, None]], dim=1))
        with computing_in(precision, maps):
            out = rectified(F.max_pool2d(self.conv1(out), 2))
            out = rectified(F.max_pool2d(self.conv2(out), 2))
        out = rectified(self.fc1(out.float().flatten(1)))
        return cast("Tensor", self.fc2(out)).view(len(maps), -1, 2, 3)


class NoWarp(nn.Module):
    """Leaves every image where it is."""

    def forward(self, images: Sequence[Tensor], maps: Tensor, lam: Tensor, z: Tensor, precision: torch.dtype) -> Warped:
        """The identity for each image, and images and maps as they are."""
        return torch.eye(2, 3, device=lam.device).expand(*lam.shape, 2, 3), images, maps


def warp(images: Sequence[Tensor], maps: Tensor, theta: Tensor) -> tuple[list[Tensor], Tensor]:
    """The k images (N, C, H, W) of each mix and their maps (N, k, H, W), moved; zero is what lies outside the frame.

    Args:
        images: see above.
        maps: see above.
        theta: (N, k, 2, 3), from a place in the result to the one in the image whose pixels are shown there; both
            run from -1 to 1 across the frame.
    """
    grids = [F.affine_grid(one, list(images[0].shape), align_corners=False) for one in theta.unbind(1)]
    warped = [F.grid_sample(image, grid, align_corners=False) for image, grid in zip(images, grids, strict=True)]
    layers = zip(maps.unbind(1), grids, strict=True)
    return warped, torch.cat([F.grid_sample(one[:, None], grid, align_corners=False) for one, grid in layers], dim=1)
