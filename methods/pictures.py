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
"""Of pictures that are worked on together: on the CPU what stays in its caches, on a GPU 128 MB in float64."""

LUMINANCE = (19595, 38470, 7471)
"""Of red, green and blue, in 65536ths."""


def apply(pictures: Tensor, names: Sequence[str | None], strengths: Tensor) -> Tensor:
    """What becomes of each picture by an operation of its own, (N, C, H, W) uint8.

    Args:
        pictures: (N, C, H, W) uint8.
        names: N keys of `OPERATIONS`; None leaves a picture as it is.
        strengths: (N,) float64 on the CPU.

    Raises:
        ValueError: luminance is asked of pictures that are neither grey nor RGB.
    """
    values = VALUES if pictures.device.type == "cpu" else GPU_VALUES
    together = max(values // pictures.shape[1:].numel(), 1)
    out = pictures.clone()
    for name in dict.fromkeys(name for name in names if name is not None):
        all_places = [place for place, this in enumerate(names) if this == name]
        for start in range(0, len(all_places), together):
            places = all_places[start : start + together]
            (chosen,) = beside(pictures, torch.tensor(places))
            out[chosen] = OPERATIONS[name](pictures[chosen], strengths[places])
    return out


# ---- where pixels come from: bilinear, and black outside, as `PIL.Image.Image.transform` has it


def rotate(pictures: Tensor, degrees: Tensor) -> Tensor:
    """Counter-clockwise about the middle."""
    height, width = pictures.shape[2:]
    matrices = [rotation(each, height, width) for each in degrees.tolist()]
    (matrix,) = beside(pictures, torch.tensor(matrices, dtype=torch.float64))
    a, b, c, d, e, f = matrix[:, :, None, None].unbind(1)
    across, down = _middles(width, pictures), _middles(height, pictures)[:, None]
    x, y = a * across + b * down + c, d * across + e * down + f
    (x0, x1, dx), (y0, y1, dy) = _neighbours(x, width), _neighbours(y, height)
    flat = pictures.flatten(2)

    def between(rows: Tensor) -> Tensor:
        left, right = (_gather(flat, (rows * width + column).flatten(1), 2).double() for column in (x0, x1))
        return _between_(left, right, dx.flatten(2))

    turned = _between_(between(y0), between(y1), dy.flatten(2)).byte().view_as(pictures)
    return turned * (_inside(x, width) & _inside(y, height))[:, None]


@functools.lru_cache(maxsize=1024)
def rotation(degrees: float, height: int, width: int) -> tuple[float, float, float, float, float, float]:
    """(a, b, c, d, e, f), by which a place (x, y) shows what is at (a x + b y + c, d x + e y + f)."""
    angle = -math.radians(degrees % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return (cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y)


def shear_x(pictures: Tensor, factor: Tensor) -> Tensor:
    """Each row shows what is to its right, by a factor of how far down it is."""
    height, width = pictures.shape[2:]
    x = _middles(width, pictures) + _each(pictures, factor)[:, 0] * _middles(height, pictures)[:, None]
    x0, x1, dx = _neighbours(x, width)
    left, right = (_gather(pictures, columns, 3).double() for columns in (x0, x1))
    return _between_(left, right, dx).byte() * _inside(x, width)[:, None]


def shear_y(pictures: Tensor, factor: Tensor) -> Tensor:
    """`shear_x` of columns."""
    return shear_x(pictures.mT, factor).mT


def translate_x(pictures: Tensor, pixels: Tensor) -> Tensor:
    """Each row shows what is so many whole pixels to its right."""
    height, width = pictures.shape[2:]
    x = torch.arange(width, device=pictures.device).expand(height, -1) + _each(pictures, pixels.long())[:, 0]
    return _gather(pictures, x.clamp(0, width - 1), 3) * _inside(x, width)[:, None]


def translate_y(pictures: Tensor, pixels: Tensor) -> Tensor:
    """`translate_x` of columns."""
    return translate_x(pictures.mT, pixels).mT


def _between_(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """What lies at a share of the way from start to end; both are written to."""
    return end.sub_(start).mul_(share).add_(start)


def _middles(size: int, pictures: Tensor) -> Tensor:
    """Of so many pixels, (size,) float64."""
    return torch.arange(size, device=pictures.device, dtype=torch.float64) + 0.5


def _inside(place: Tensor, size: int) -> Tensor:
    return (place >= 0) & (place < size)


def _neighbours(place: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after a place, (N, H, W) int64, and how far it is from the first, (N, 1, H, W)."""
    place = place - 0.5
    before = place.floor()
    first, second = (pixel.clamp(0, size - 1).long() for pixel in (before, before + 1))
    return first, second, (place - before)[:, None]


def _gather(pictures: Tensor, pixels: Tensor, dim: int) -> Tensor:
    """`Tensor.gather` of the same pixels, (N, ...), in every channel of (N, C, ...)."""
    return pictures.gather(dim, pixels[:, None].expand(-1, pictures.shape[1], *pixels.shape[1:]))


# ---- what becomes of a value


def autocontrast(pictures: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to the full range."""
    flat = pictures.flatten(2)
    low, high = flat.amin(2, keepdim=True).double(), flat.amax(2, keepdim=True).double()
    scale = torch.full_like(high, 255.0).div_(high - low)  # 255 / tensor would round twice
    value = torch.arange(256, device=flat.device)
    table = torch.where(high > low, (value * scale + -low * scale).clamp(0, 255), value)
    return _looked_up(pictures, table)


def equalize(pictures: Tensor, _: Tensor) -> Tensor:
    """Each channel with a histogram as even as a new value for each value can make it."""
    flat = pictures.flatten(2).long()
    counts = flat.new_zeros(*flat.shape[:2], 256).scatter_add_(2, flat, flat.new_ones(()).expand_as(flat))
    step = (flat.shape[2] - counts.gather(2, flat.amax(2, keepdim=True))) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_max(255)
    return _looked_up(pictures, torch.where(step > 0, table, torch.arange(256, device=flat.device)))


def posterize(pictures: Tensor, bits: Tensor) -> Tensor:
    """Only the highest so many bits of each value."""
    return pictures & _each(pictures, (256 - 2 ** (8 - bits)).byte())


def solarize(pictures: Tensor, threshold: Tensor) -> Tensor:
    """Values from a threshold on, in [0, 256], inverted."""
    return torch.where(pictures < _each(pictures, threshold), pictures, 255 - pictures)


def _looked_up(pictures: Tensor, table: Tensor) -> Tensor:
    """New values by a table of each channel, (N, C, 256) in [0, 255], rounded down."""
    return table.byte().gather(2, pictures.flatten(2).long()).view_as(pictures)


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
        operation.__name__: operation
        for operation in (
            *(autocontrast, equalize, posterize, solarize),
            *(rotate, shear_x, shear_y, translate_x, translate_y),
            *(color, contrast, brightness, sharpness),
        )
    }
)
"""All of them, by name."""
