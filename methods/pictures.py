"""Pillow's operations on 8-bit pictures, for many pictures at once and wherever they lie, equal to the last bit.

Pictures are (N, C, H, W) uint8. Every operation takes them with a strength for each, (N,) float64 on the CPU, and
returns new ones; which of Pillow's parameters the strength is, each says. What Pillow computes in integers, in float32
or in float64 is computed so here too, and one operation after the other, so that none are fused.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from methods.ops import beside

VALUES, GPU_VALUES = 2**17, 2**24
"""Of pictures that are warped together: on the CPU what stays in its caches, on a GPU 128 MB in float64."""

LUMINANCE = (19595, 38470, 7471)
"""Of red, green and blue, in 65536ths."""


def apply(pictures: Tensor, names: Sequence[str], strengths: Tensor) -> Tensor:
    """What becomes of each picture by an operation of its own, (N, C, H, W) uint8.

    Args:
        pictures: (N, C, H, W) uint8.
        names: N keys of `GEOMETRY` and `OPERATIONS`.
        strengths: (N,) float64 on the CPU.

    Raises:
        ValueError: luminance is asked of pictures that are neither grey nor RGB.
    """
    size = pictures.shape[2:]
    kinds = ["geometry" if name in GEOMETRY else name for name in names]
    out = torch.empty_like(pictures)
    for kind in dict.fromkeys(kinds):
        places = [place for place, this in enumerate(kinds) if this == kind]
        (chosen,) = beside(pictures, torch.tensor(places))
        some, by = pictures[chosen], strengths[places]
        if kind == "geometry":
            asked = zip(places, by.tolist(), strict=True)
            matrices = torch.tensor([GEOMETRY[names[place]](how, *size) for place, how in asked], dtype=torch.float64)
            out[chosen] = warp(some, matrices)
        else:
            out[chosen] = OPERATIONS[kind](some, by)
    return out


# ---- where pixels come from: (a, b, c, d, e, f), and output (x, y) shows input (a x + b y + c, d x + e y + f)

Matrix = tuple[float, float, float, float, float, float]


@functools.lru_cache(maxsize=1024)
def rotation(degrees: float, height: int, width: int) -> Matrix:
    """Counter-clockwise about the middle, as `PIL.Image.Image.rotate` has it."""
    angle = -math.radians(degrees % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return (cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y)


GEOMETRY: Mapping[str, Callable[[float, int, int], Matrix]] = MappingProxyType(
    {
        "rotate": rotation,
        "shear_x": lambda factor, *_: (1.0, factor, 0.0, 0.0, 1.0, 0.0),
        "shear_y": lambda factor, *_: (1.0, 0.0, 0.0, factor, 1.0, 0.0),
        "translate_x": lambda pixels, *_: (1.0, 0.0, pixels, 0.0, 1.0, 0.0),
        "translate_y": lambda pixels, *_: (1.0, 0.0, 0.0, 0.0, 1.0, pixels),
    }
)
"""Operations that move pixels: their matrix by strength, height and width."""


def warp(pictures: Tensor, matrices: Tensor) -> Tensor:
    """Pictures under affine maps, bilinear, black outside, as `PIL.Image.Image.transform` has it.

    Args:
        pictures: (N, C, H, W) uint8.
        matrices: (N, 6) float64 on the CPU.
    """
    values = VALUES if pictures.device.type == "cpu" else GPU_VALUES
    together = max(values // pictures[0].numel(), 1)
    (matrices,) = beside(pictures, matrices)
    parts = [slice(start, start + together) for start in range(0, len(pictures), together)]
    return torch.cat([_warp(pictures[part], matrices[part]) for part in parts])


def _warp(pictures: Tensor, matrices: Tensor) -> Tensor:
    height, width = pictures.shape[2:]
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    down = torch.arange(height, device=pictures.device, dtype=torch.float64)[:, None] + 0.5
    right = torch.arange(width, device=pictures.device, dtype=torch.float64) + 0.5
    x, y = a * right + b * down + c, d * right + e * down + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    (x0, x1, dx), (y0, y1, dy) = _neighbours(x, width), _neighbours(y, height)
    flat = pictures.flatten(2)

    def row(at: Tensor) -> Tensor:
        left, right = (_gather(flat, at * width + column).view_as(pictures).double() for column in (x0, x1))
        return left + (right - left) * dx

    upper = row(y0)
    return (upper + (row(y1) - upper) * dy).byte() * inside[:, None]


def _neighbours(at: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after a place, (N, H, W) int64, and its distance from the first, (N, 1, H, W)."""
    at = at - 0.5  # of a pixel's middle
    before = at.floor()
    low, high = (pixel.clamp(0, size - 1).long() for pixel in (before, before + 1))
    return low, high, (at - before)[:, None]


def _gather(flat: Tensor, pixels: Tensor) -> Tensor:
    """Values of (N, C, H W) pictures at these pixels, (N, H, W), the same of every channel."""
    return flat.gather(2, pixels.flatten(1)[:, None].expand(-1, flat.shape[1], -1))


# ---- what becomes of a value


def autocontrast(pictures: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to the full range."""
    low, high = pictures.amin((2, 3), keepdim=True).double(), pictures.amax((2, 3), keepdim=True).double()
    scale = torch.full_like(high, 255.0).div_(high - low)  # 255 / tensor would round twice
    stretched = (pictures.double() * scale + -low * scale).clamp(0, 255)
    return torch.where(high > low, stretched, pictures.double()).byte()


def equalize(pictures: Tensor, _: Tensor) -> Tensor:
    """Each channel with a histogram as even as a new value for each value can make it."""
    flat = pictures.flatten(2).long()
    counts = flat.new_zeros(*flat.shape[:2], 256).scatter_add_(2, flat, torch.ones_like(flat))
    step = (flat.shape[2] - counts.gather(2, flat.amax(2, keepdim=True))) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_max(255)
    table = torch.where(step > 0, table, torch.arange(256, device=flat.device))
    return table.gather(2, flat).byte().view_as(pictures)


def posterize(pictures: Tensor, bits: Tensor) -> Tensor:
    """Only the highest so many bits of each value."""
    return pictures & _each(pictures, (256 - 2 ** (8 - bits)).byte())


def solarize(pictures: Tensor, threshold: Tensor) -> Tensor:
    """Values from a threshold on, in [0, 256], inverted."""
    return torch.where(pictures < _each(pictures, threshold), pictures, 255 - pictures)


# ---- enhancements: away from a picture without a quality, or towards it; a factor of 1 leaves all as it is


def color(pictures: Tensor, factor: Tensor) -> Tensor:
    """Away from grey."""
    return _enhanced(luminance(pictures), pictures, factor)


def contrast(pictures: Tensor, factor: Tensor) -> Tensor:
    """Away from the mean of the luminance."""
    grey = luminance(pictures).flatten(1).long()
    mean = (2 * grey.sum(1) + grey.shape[1]) // (2 * grey.shape[1])
    return _enhanced(mean[:, None, None, None], pictures, factor)


def brightness(pictures: Tensor, factor: Tensor) -> Tensor:
    """Away from black."""
    return _enhanced(torch.zeros_like(pictures), pictures, factor)


def sharpness(pictures: Tensor, factor: Tensor) -> Tensor:
    """Away from a blur by a 3 x 3 window whose middle counts five times, which leaves the border as it is."""
    height, width = pictures.shape[2:]
    whole = pictures.int()
    shifted = [whole[:, :, top : height - 2 + top, left : width - 2 + left] for top in range(3) for left in range(3)]
    if min(height, width) > 2:
        total = sum(shifted, start=4 * shifted[4])
        whole[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26
    return _enhanced(whole, pictures, factor)


def luminance(pictures: Tensor) -> Tensor:
    """The grey picture, (N, 1, H, W).

    Raises:
        ValueError: pictures are neither grey nor RGB.
    """
    channels = pictures.shape[1]
    if channels == 1:
        return pictures
    if channels != len(LUMINANCE):
        raise ValueError(f"images have {channels} channels: their luminance is known for 1, and for 3 (RGB)")
    red, green, blue = (pictures[:, [channel]].int() * weight for channel, weight in enumerate(LUMINANCE))
    return (red + green + blue + 2**15) >> 16


def _enhanced(without: Tensor, pictures: Tensor, factor: Tensor) -> Tensor:
    """From one picture to the other by a factor in float32, cut off at the ends of the range."""
    start = without.float()
    return (start + (pictures.float() - start) * _each(pictures, factor.float())).clamp(0, 255).byte()


def _each(pictures: Tensor, values: Tensor) -> Tensor:
    """A value for each picture, beside them and to be broadcast over them: (N, 1, 1, 1)."""
    return beside(pictures, values)[0][:, None, None, None]


OPERATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "autocontrast": autocontrast,
        "equalize": equalize,
        "posterize": posterize,
        "solarize": solarize,
        "color": color,
        "contrast": contrast,
        "brightness": brightness,
        "sharpness": sharpness,
    }
)
"""Operations that leave pixels in their places."""
