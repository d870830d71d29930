"""A data set that lies on the device whole: a batch is one gather through a table of views."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Batch
from mixbench.data import crops
from mixbench.data.images import Images
from mixbench.shares import WHOLE, Share
from mixbench.streams import Streams

PAD_MODES = ("zeros", "reflect")


class Resident(Images):
    """Pictures on the device, and batches of their views.

    A view is a crop after padding, flipped or not. There are ``views`` of them: (2 pad + 1)², twice that with flips;
    number ``(flipped * S + y) * S + x`` with S = 2 pad + 1 begins at row y and column x of the padded picture. Zeros
    are black pixels: padding comes before normalisation, as in torchvision's usual pipeline. The ids of views are below
    ``ids_below``.

    Args:
        x: (N, H, W, C) uint8, C at most 4.
        y: (N,) int64 labels, below ``classes``.
        classes: length of the one-hot labels.
        pad: pixels on each side.
        pad_mode: ``zeros`` or ``reflect`` (the edge pixel is not repeated).
        flip: whether there are mirrored views.
        device: where the pictures lie.
        channels_last: memory format of the batches.
        subset: indices of the pictures to keep, on the CPU. They keep their numbers in ``x`` for the ids of views, so
            that a view has one id in every run, whatever its subset.

    Raises:
        ValueError: a padding that the pictures cannot have.
    """

    def __init__(
        self,
        x: NDArray[np.uint8],
        y: NDArray[np.int64],
        *,
        classes: int,
        pad: int,
        pad_mode: str,
        flip: bool,
        device: torch.device,
        channels_last: bool,
        subset: Tensor | None = None,
    ) -> None:
        self._numbers = torch.arange(len(x)) if subset is None else subset
        self._device = device
        self._shape = x.shape[1:]
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._table = _views(x.shape[1], x.shape[2], pad=pad, pad_mode=pad_mode, flip=flip).to(device)
        kept = slice(None) if subset is None else subset.numpy()
        self._words = _words(x[kept]).to(device)
        self._y = torch.from_numpy(y[kept]).to(device)
        self._one_hot = torch.eye(classes, device=device)
        self._plain = pad * (2 * pad + 1) + pad
        self.views = len(self._table)
        self.ids_below: int | None = len(x) * self.views

    def __len__(self) -> int:
        return len(self._numbers)

    def epoch(
        self, streams: Streams, epoch: int, batch_size: int, *, skip: int = 0, share: Share = WHOLE
    ) -> Iterator[Batch]:
        """The batches of one epoch, see `Images.epoch`.

        Order and views are drawn for the whole epoch ahead, from the streams ``order`` and ``views`` of that epoch.
        """
        images = torch.randperm(len(self), generator=streams.generator("order", epoch))
        views = torch.randint(self.views, (len(self),), generator=streams.generator("views", epoch))
        ids = self.ids(images, views)
        images, views = (indices.to(self._device, non_blocking=True) for indices in (images, views))
        for chosen in self.parts(batch_size, skip=skip, share=share):
            x, y = self.gather(images[chosen], views[chosen])
            yield Batch(x, y, ids[chosen])

    def test_batches(
        self, batch_size: int, *, order: Tensor | None = None, first_id: int | None = None
    ) -> Iterator[Batch]:
        """All images, neither cropped nor flipped.

        Args:
            batch_size: the last batch has what is left.
            order: int64 on the CPU, the images and their order; None: all, as they are.
            first_id: the id of the first image's view, the others' follow; None: they have none.
        """
        order = torch.arange(len(self)) if order is None else order
        for images in torch.split(order, batch_size):
            ids = None if first_id is None else first_id + self._numbers[images]
            images = images.to(self._device, non_blocking=True)
            yield Batch(*self.gather(images, torch.full_like(images, self._plain)), ids)

    def numbers(self, batch: Batch) -> Tensor:
        """Which images a batch is of, (N,) int64 on the CPU; -1 where it has no ids."""
        return super().numbers(batch) if batch.view is None else batch.view // self.views

    def ids(self, images: Tensor, views: Tensor) -> Tensor:
        """The ids of these views of these images, (N,) int64 on the CPU: the image's number * ``self.views`` + view."""
        return self._numbers[images] * self.views + views

    def gather(self, images: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        """These views of these images, and their labels.

        Args:
            images: (N,) int64 on the device, places in this set.
            views: (N,) int64 on the device, below ``self.views``.

        Returns:
            (N, C, H, W) float32 in [0, 1], and (N, G) one-hot labels.
        """
        height, width, channels = self._shape
        pictures = self._words.index_select(0, images)
        # Counted from the batch's first word, an index fits 32 bits: half the table to move.
        starts = torch.arange(0, pictures.numel(), pictures.shape[1], dtype=torch.int32, device=self._device)
        chosen = self._table.index_select(0, views).add_(starts[:, None])
        words = pictures.view(-1).index_select(0, chosen.view(-1))
        pixels = words.view(torch.uint8).view(-1, height, width, 4)
        x = torch.empty((len(images), channels, height, width), device=self._device, memory_format=self._format)
        # Channel by channel: copied at once into channels_last, the inner loop would be three numbers long.
        for channel in range(channels):
            x[:, channel] = pixels[..., channel]
        return x.div_(255), self._one_hot.index_select(0, self._y.index_select(0, images))


class Cropped(Resident):
    """Pictures on the device, and batches of their random resized crops, flipped or not, whose views have no ids.

    Args:
        x, y, subset, classes, device, channels_last: as for `Resident`.
        flip: whether every second crop is mirrored.
        interpolation: ``bicubic`` or ``bilinear``.
    """

    def __init__(
        self,
        x: NDArray[np.uint8],
        y: NDArray[np.int64],
        *,
        classes: int,
        flip: bool,
        interpolation: str,
        device: torch.device,
        channels_last: bool,
        subset: Tensor | None = None,
    ) -> None:
        super().__init__(
            x,
            y,
            classes=classes,
            pad=0,
            pad_mode="zeros",
            flip=False,
            device=device,
            channels_last=channels_last,
            subset=subset,
        )
        self.ids_below = None
        self._flips = flip
        self._interpolation = interpolation

    def epoch(
        self, streams: Streams, epoch: int, batch_size: int, *, skip: int = 0, share: Share = WHOLE
    ) -> Iterator[Batch]:
        """The batches of one epoch, as `Resident.epoch` has them, of crops that the stream ``views`` draws."""
        images = torch.randperm(len(self), generator=streams.generator("order", epoch))
        shape = len(self), crops.DRAWS
        draws = torch.rand(shape, dtype=torch.float64, generator=streams.generator("views", epoch))
        boxes, mirrored = crops.boxes(draws, *self._shape[:2]), crops.mirrored(draws) & self._flips
        images, boxes, mirrored = (one.to(self._device, non_blocking=True) for one in (images, boxes, mirrored))
        for chosen in self.parts(batch_size, skip=skip, share=share):
            whole, y = self.gather(images[chosen], torch.zeros_like(images[chosen]))
            x = crops.resized(whole, boxes[chosen], mirrored[chosen], interpolation=self._interpolation)
            yield Batch(x.contiguous(memory_format=self._format), y)


def stratified_subset(y: NDArray[np.int64], count: int, generator: torch.Generator) -> Tensor:
    """Indices, ascending, of ``count`` images: as many of each class; the first classes have one more if need be.

    All of them are all of them, also where classes differ in size.

    Raises:
        ValueError: a class has too few images.
    """
    if count == len(y):
        return torch.arange(count)
    classes, labels = np.unique(y, return_inverse=True)
    shuffled = torch.randperm(len(y), generator=generator).numpy()
    chosen = []
    for place, name in enumerate(classes):
        wanted = count // len(classes) + (place < count % len(classes))
        members = shuffled[labels[shuffled] == place]
        if len(members) < wanted:
            raise ValueError(f"{count} images need {wanted} of class {name}, which has {len(members)}; ask for fewer")
        chosen.append(members[:wanted])
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def _words(x: NDArray[np.uint8]) -> Tensor:
    """Pictures as (N, H W + 1) int32, the last black. A pixel is one word: a gather moves all its channels at once."""
    count, height, width, channels = x.shape
    padded = np.zeros((count, height * width + 1, 4), np.uint8)
    padded[:, :-1, :channels] = x.reshape(count, height * width, channels)
    return torch.from_numpy(padded).view(torch.int32).squeeze(2)


def _views(height: int, width: int, *, pad: int, pad_mode: str, flip: bool) -> Tensor:
    """Which word each pixel of each view is, (views, H W) int32."""
    if pad_mode not in PAD_MODES:
        raise ValueError(f"pad_mode is {pad_mode}; there are: {', '.join(PAD_MODES)}")
    if pad < 0 or (pad_mode == "reflect" and pad >= min(height, width)):
        raise ValueError(f"pad is {pad} ({pad_mode}), but the pictures are {height} x {width}; make it smaller")
    numbers = np.arange(height * width).reshape(height, width)
    if pad_mode == "zeros":
        padded = np.pad(numbers, pad, constant_values=height * width)
    else:
        padded = np.pad(numbers, pad, mode="reflect")
    crops = np.lib.stride_tricks.sliding_window_view(padded, (height, width))
    both = np.stack([crops, crops[..., ::-1]]) if flip else crops
    return torch.from_numpy(both.reshape(-1, height * width).astype(np.int32))
