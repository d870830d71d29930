"""Fine-grained saliency: how a pixel stands out from what surrounds it, near and far (Montabone and Soto, 2010).

OpenCV's map of it (``cv2.saliency.StaticSaliencyFineGrained``), bit for bit, for a whole batch at once and without
waiting for the device. Inside, the batch comes last: what is gathered of rows and columns is then copied whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

RADII = (12, 24, 28, 48, 56, 112)
"""Of the surrounds, in pixels; those that cover the picture from every pixel are alike, and computed once."""

WEIGHTS = (3735, 19235, 9798)
"""Of the channels in an 8-bit grey, in 32768ths. They are those of blue, green and red, but the published code hands
OpenCV red, green and blue; so red has the weight of blue, here too."""
FLOAT_WEIGHTS = (0.114, 0.587, 0.299)
"""The same for pictures of float32 numbers."""


def fine_grained(x: Tensor) -> Tensor:
    """The maps of images as 8-bit pictures, round(255 x): (N, H, W) uint8, of which OpenCV returns 255ths.

    Sums are of integers, so exact; those of OpenCV are float32, so beyond 256 x 256 pixels its maps may differ.

    Args:
        x: (N, C, H, W) images in [0, 1], of one channel or three.

    Raises:
        ValueError: they have another number of channels.
    """
    blurred = _blurred(_blurred(_grey(x).permute(1, 2, 0).contiguous()))
    return _centre_surround(blurred, _summed(blurred.int()))


def fine_grained_of_bytes(pictures: Tensor) -> Tensor:
    """What comes out where OpenCV is handed pictures of float32 numbers, (N, C, H, W), any: (N, H, W) uint8.

    Its routine blurs and sums the numbers, but reads the pixel in the centre as 8 bits: in column ``i`` of a row, that
    is byte ``i`` of its numbers, of which each has four. Roundings are those of a processor with fused multiply-add.

    Raises:
        ValueError: as `fine_grained`.
    """
    blurred = _blurred_numbers(_blurred_numbers(_grey_of_numbers(pictures)))
    return bytewise(blurred)


def bytewise(blurred: Tensor) -> Tensor:
    """`fine_grained_of_bytes` from the blurred grey of the pictures on, (N, H, W) float32."""
    centre = blurred.contiguous().view(torch.uint8)[:, :, : blurred.shape[2]]
    return _centre_surround(centre.permute(1, 2, 0), _summed(blurred.permute(1, 2, 0).double()))


def _channels(x: Tensor) -> tuple[Tensor, ...]:
    if x.shape[1] not in (1, 3):
        raise ValueError(
            f"images have {x.shape[1]} channels: fine-grained saliency is of grey images, or of 3 channels"
        )
    return x.unbind(1)


def _grey(x: Tensor) -> Tensor:
    """The 8-bit grey of images in [0, 1], (N, H, W) int16."""
    levels = [channel.float().mul(255).round_() for channel in _channels(x)]
    if len(levels) == 1:
        return levels[0].to(torch.int16)
    first, *others = levels
    grey = first.mul_(WEIGHTS[0]).add_(2**14)  # all integers below 2 ** 24: float32 is exact
    for level, weight in zip(others, WEIGHTS[1:], strict=True):
        grey.add_(level, alpha=weight)
    return grey.mul_(2**-15).to(torch.int16)


def _grey_of_numbers(x: Tensor) -> Tensor:
    """The grey of float32 pictures, (N, H, W)."""
    numbers = [channel.double() for channel in _channels(x)]
    if len(numbers) == 1:
        return x[:, 0].float()
    first, second, third = numbers
    weights = torch.tensor(FLOAT_WEIGHTS, dtype=torch.float32).tolist()  # as float32 has them
    # In float64 products are exact, so that each line rounds once, as a fused multiply-add does.
    grey = second.mul(weights[1]).float()
    grey = first.mul(weights[0]).add_(grey).float()
    return third.mul(weights[2]).add_(grey).float()


def _blurred(grey: Tensor) -> Tensor:
    """A picture, (H, W, N) of integers, under a 3 x 3 binomial, whose border is a mirror; rounded to 8 bits."""
    return _binomial(_binomial(grey, 0), 1).add_(8) >> 4


def _blurred_numbers(grey: Tensor) -> Tensor:
    """The same of numbers, (N, H, W) float32, rows first: the order of the sums is OpenCV's."""
    return _binomial(_binomial(grey, 2) / 4, 1) / 4


def _binomial(values: Tensor, dim: int) -> Tensor:
    """Each value twice, and its two neighbours, without the edge repeated."""
    size = values.shape[dim]
    here = torch.arange(size, device=values.device)
    before, after = (here - 1).abs(), size - 1 - (size - 2 - here).abs()
    if size == 1:
        before = after = here
    return values.index_select(dim, before).add_(values.index_select(dim, after)).add_(values, alpha=2)


def _summed(values: Tensor) -> Tensor:
    """The sum of all that lies above and left of each corner: (H + 1, W + 1, N) of (H, W, N)."""
    height, width, count = values.shape
    sums = values.new_zeros(height + 1, width + 1, count)
    sums[1:, 1:] = values.cumsum(0, dtype=values.dtype).cumsum(1, dtype=values.dtype)
    return sums


def _centre_surround(centre: Tensor, sums: Tensor) -> Tensor:
    """The map, (N, H, W) uint8, of pixels (H, W, N) of 8 bits and of the sums of their surrounds, see `_summed`."""
    here = centre.float()
    brighter, darker = here.new_zeros(here.shape, dtype=torch.int16), here.new_zeros(here.shape, dtype=torch.int16)
    for radius, times in _distinct_radii(*centre.shape[:2]).items():
        total, others = _windows(sums, radius)
        mean = total.float().sub_(here).div_(others)
        difference = mean.neg_().add_(here).to(torch.int16)  # rounds towards 0
        brighter.add_(_low_byte(difference), alpha=times)
        darker.add_(_low_byte(difference.neg_()), alpha=times)
    # As far as one of the two has a value, it has 255 for its largest, which brings their sum to 8 bits: by wrapping.
    return (_spread(brighter) + _spread(darker)).permute(2, 0, 1).to(torch.uint8)


def _distinct_radii(height: int, width: int) -> Mapping[int, int]:
    """Radii whose windows are not alike, with how many each stands for."""
    cut = [min(radius, max(height, width)) for radius in RADII]
    return {radius: cut.count(radius) for radius in cut}


def _windows(sums: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The sum within the window of each pixel, (H, W, N), and how many other pixels are in it, (H, W, 1) float32."""
    top, bottom = _bounds(sums.shape[0] - 1, radius, sums.device)
    left, right = _bounds(sums.shape[1] - 1, radius, sums.device)
    above, below = sums.index_select(0, top), sums.index_select(0, bottom)
    total = below.index_select(1, right).add_(above.index_select(1, left))
    total.sub_(below.index_select(1, left)).sub_(above.index_select(1, right))
    area = (bottom - top)[:, None] * (right - left)
    return total, (area - 1).clamp_(min=1).float()[:, :, None]  # at least 1: a picture may be a single pixel


def _bounds(size: int, radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Begin and end of the window of each place, clipped: one longer to the end."""
    here = torch.arange(size, device=device)
    return (here - radius + 1).clamp_(min=0), (here + radius + 1).clamp_(max=size)


def _low_byte(difference: Tensor) -> Tensor:
    """What of it is above 0, as 8 bits hold it: only means of `bytewise` are ever so low that something is lost."""
    return difference.clamp(min=0).bitwise_and_(255)


def _spread(values: Tensor) -> Tensor:
    """Each picture, (H, W, N), brought to 0 to 255 by its largest value; one that is nothing but 0 stays so."""
    largest = values.amax((0, 1)).clamp_(min=1).float()
    return values.float().div_(largest).double().mul_(255).to(torch.int16)
