"""The batches that are mixed: the same for every method, and so many that none is still in a cache; imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from methods import Batch
from mixbench.data import DATASETS, Facts, MissingError
from mixbench.data.read import read

TIMES_THE_CACHE = 3
MOST_BYTES = 256 << 20
"""Of all batches together, where a machine's cache is larger than one would think."""

UNITS = {"K": 10, "M": 20, "G": 30}
"""Powers of two by which the system counts bytes."""

COARSE = 4
"""Pixels of a made-up picture that have about the same colour, along a side."""

DECODED = frozenset({"imagenet"})
"""Data sets that are too large to be read at once: their pictures are made up."""


@dataclass(frozen=True)
class Inputs:
    """Batches, which come by turns.

    Attributes:
        batches: images on the device, with a view of its own for each.
        source: what they are.
        real: whether they are a data set's, so that what a teacher sees in them means something.
        classes: of their labels.
    """

    batches: Sequence[Batch]
    source: str
    real: bool
    classes: int

    def __getitem__(self, number: int) -> Batch:
        """The batch of a round."""
        return self.batches[number % len(self.batches)]

    @property
    def images(self) -> int:
        """Of all batches."""
        return sum(len(batch.x) for batch in self.batches)


def inputs(setting: str, facts: Facts, *, root: Path, size: int, most: int, device: torch.device, seed: int) -> Inputs:
    """The batches of a setting: of its training images, where these are at hand, else made up.

    Args:
        setting: data set and model.
        facts: of its pictures.
        root: the data folder.
        size: images of a batch.
        most: batches; no more are made.
        device: where they are to be.
        seed: draws them.
    """
    generator = torch.Generator().manual_seed(seed)
    count = min(most, _needed(facts, size, device))
    dataset = setting.rpartition("/")[0]
    there = _training_images(dataset, root) if dataset in DATASETS and dataset not in DECODED else None
    if there is None:
        classes, source = facts.classes, "made-up 8-bit pictures"
        pairs: Iterator[tuple[Tensor, Tensor]] = (_made_up(facts, size, generator) for _ in range(count))
    else:
        x, y, classes = there
        source = f"training images of {facts.label}"
        pairs = _drawn(x, y, size, count, generator)
    batches = [_batch(x, y, classes, number, device) for number, (x, y) in enumerate(pairs)]
    return Inputs(batches, source, there is not None, classes)


def _needed(facts: Facts, size: int, device: torch.device) -> int:
    bytes_of_one = 4 * size * facts.channels * facts.image_size**2
    return max(2, math.ceil(min(MOST_BYTES, TIMES_THE_CACHE * cache_bytes(device)) / bytes_of_one))


def cache_bytes(device: torch.device) -> int:
    """Of the last cache before the memory; where the system does not say, 32 MiB."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    told = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) << UNITS[size[-1]] for size in told if size[-1:] in UNITS), default=32 << 20)


def _training_images(dataset: str, root: Path) -> tuple[Tensor, Tensor, int] | None:
    try:
        pictures = read(dataset, root=root, image_size=None)
    except MissingError:
        return None
    return torch.from_numpy(pictures.train_x), torch.from_numpy(pictures.train_y), pictures.classes


def _drawn(x: Tensor, y: Tensor, size: int, count: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images (size, C, H, W) uint8 and labels (size,), out of (N, H, W, C) and (N,)."""
    for _ in range(count):
        chosen = torch.randint(len(x), (size,), generator=generator)
        yield x[chosen].permute(0, 3, 1, 2), y[chosen]


def _made_up(facts: Facts, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (size, C, H, W) uint8, smooth with noise over them, and labels (size,)."""
    side = math.ceil(facts.image_size / COARSE)
    coarse = torch.rand(size, facts.channels, side, side, generator=generator)
    x = F.interpolate(coarse, (facts.image_size, facts.image_size), mode="bilinear", align_corners=False)
    x = x + 0.05 * torch.randn(x.shape, generator=generator)
    labels = torch.randint(facts.classes, (size,), generator=generator)
    return (255 * x).round().clamp(0, 255).to(torch.uint8), labels


def _batch(x: Tensor, y: Tensor, classes: int, number: int, device: torch.device) -> Batch:
    images = (x.float() / 255).to(device).contiguous(memory_format=torch.channels_last)
    view = torch.arange(len(x)) + number * len(x)
    return Batch(images, F.one_hot(y, classes).float().to(device), view)
