"""A data set too large for the device: workers decode the files that a batch needs, the device finishes it."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from methods.base import Batch
from mixbench import devices, signals
from mixbench.data import DataError, crops
from mixbench.data.imagenet import Part
from mixbench.data.images import Images
from mixbench.data.read import rgb
from mixbench.shares import WHOLE, Share
from mixbench.streams import Streams

SHORTER = 256 / 224
"""A test image's shorter side, before the middle of it is cut out, in sides of that; the usual protocol's."""

MOST = 100
"""Images of a test batch: at 224 pixels, more take memory and no less time."""


class Decoded(Images):
    """Image files, and batches of their random resized crops, flipped or not. Their views have no ids.

    Each image's crop is drawn from the stream ``views`` of its epoch and its own number, so that the number of workers
    changes nothing. For the test, the shorter side is resized, to 256 for images of 224, and the middle is taken.

    Args:
        part: the files.
        size: the side that they are brought to, in pixels.
        interpolation: ``bilinear`` or ``bicubic``.
        flip: whether every second crop is mirrored.
        device: where the batches are to be.
        channels_last: memory format of the batches.
        workers: processes that decode; 0: this one does. None: one a core.
        subset: numbers of the images to keep, on the CPU.
    """

    ids_below = None

    def __init__(
        self,
        part: Part,
        *,
        size: int,
        interpolation: str,
        flip: bool,
        device: torch.device,
        channels_last: bool,
        workers: int | None,
        subset: Tensor | None = None,
    ) -> None:
        self._part = part
        self._numbers = torch.arange(len(part.labels)) if subset is None else subset
        self._size = size
        self._interpolation = v2.InterpolationMode(interpolation)
        self._flip = flip
        self._device = device
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._workers = devices.cores() if workers is None else workers
        self._y = torch.from_numpy(part.labels)
        self._one_hot = torch.eye(len(part.classes), device=device)

    def __len__(self) -> int:
        return len(self._numbers)

    def epoch(
        self, streams: Streams, epoch: int, batch_size: int, *, skip: int = 0, share: Share = WHOLE
    ) -> Iterator[Batch]:
        """The batches of one epoch, see `Images.epoch`.

        Raises:
            DataError: an image is damaged; names it.
        """
        order = torch.randperm(len(self), generator=streams.generator("order", epoch))
        numbers = self._numbers[order]
        draw = partial(_drawn, streams, epoch)
        cut = partial(_cropped, draw, size=self._size, interpolation=self._interpolation, flip=self._flip)
        return self._batches([numbers[part] for part in self.parts(batch_size, skip=skip, share=share)], cut)

    def test_batches(
        self,
        batch_size: int,
        *,
        order: Tensor | None = None,
        first_id: int | None = None,  # noqa: ARG002  (the views of such images have no ids)
    ) -> Iterator[Batch]:
        """All images, the middle of each, see `Images.test_batches`; no batch has more than `MOST`.

        Raises:
            DataError: an image is damaged; names it.
        """
        chosen = self._numbers if order is None else self._numbers[order]
        cut = partial(_middle, size=self._size, interpolation=self._interpolation)
        return self._batches(torch.split(chosen, min(batch_size, MOST)) if len(chosen) else (), cut)

    def _batches(self, batches: Sequence[Tensor], cut: Cut) -> Iterator[Batch]:
        """Batches of images of the part, by their numbers."""
        numbers = torch.cat([*batches, torch.empty(0, dtype=torch.int64)])
        labels = torch.split(self._y[numbers].to(self._device), [len(batch) for batch in batches])
        loader = DataLoader(
            _Files(self._part, cut),
            batch_sampler=[batch.tolist() for batch in batches],
            num_workers=min(self._workers, len(batches)),
            collate_fn=_together,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_leave_stopping_to_the_parent,
            generator=torch.Generator(),  # it draws a number whenever it begins: not from the run's streams
        )
        for pixels, y in zip(_begun(loader), labels, strict=False):
            if isinstance(pixels, DataError):
                raise pixels
            yield Batch(self._finished(pixels), self._one_hot.index_select(0, y))

    def _finished(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [0, 1] on the device, from (N, H, W, C) uint8."""
        x = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        return x.to(torch.float32, memory_format=self._format).div_(255)


Cut = Callable[[Image, int], Image]
"""What is made of an image, which has a number."""


@dataclass(frozen=True)
class _Files(Dataset[Tensor | DataError]):
    """Images as (H, W, C) uint8; what is wrong with one is handed on, where raising it would bury it in a traceback."""

    part: Part
    cut: Cut

    def __getitem__(self, number: int) -> Tensor | DataError:
        try:
            picture = rgb(self.part.path(number))
        except DataError as error:
            return error
        return torch.from_numpy(np.array(self.cut(picture, number)))


def _together(pictures: Sequence[Tensor | DataError]) -> Tensor | DataError:
    """A batch, or the first thing that is wrong in it."""
    tensors = []
    for picture in pictures:
        if isinstance(picture, DataError):
            return picture
        tensors.append(picture)
    return torch.stack(tensors)


def _begun(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's workers begin, and do not hear a stop before they have said that they will not heed it."""
    with signals.held():
        return iter(loader)


def _leave_stopping_to_the_parent(worker: int) -> None:  # noqa: ARG001
    """A stop must not take the workers from a run that is yet to be saved."""
    signals.leave_to_the_parent()


@atexit.register
def _kill_what_still_decodes() -> None:
    """When an error ends this process, Python asks the workers to stop and waits for them, who ignore it, for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise an error for every worker that is killed
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _drawn(streams: Streams, epoch: int, number: int) -> Tensor:
    """The (1, `crops.DRAWS`) numbers of an image in an epoch."""
    return torch.rand(1, crops.DRAWS, dtype=torch.float64, generator=streams.generator("views", epoch, number))


def _cropped(
    draw: Callable[[int], Tensor],
    image: Image,
    number: int,
    *,
    size: int,
    interpolation: v2.InterpolationMode,
    flip: bool,
) -> Image:
    draws = draw(number)
    box = crops.boxes(draws, image.height, image.width)[0].tolist()
    cropped: Image = v2.functional.resized_crop(image, *box, [size, size], interpolation)
    if flip and bool(crops.mirrored(draws)):
        cropped = v2.functional.horizontal_flip(cropped)
    return cropped


def _middle(image: Image, number: int, *, size: int, interpolation: v2.InterpolationMode) -> Image:  # noqa: ARG001
    shorter = v2.functional.resize(image, [round(SHORTER * size)], interpolation)
    middle: Image = v2.functional.center_crop(shorter, [size, size])
    return middle
