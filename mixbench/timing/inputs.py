"""The batches that are mixed: the same for every method, and so many that none is still in a cache; imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path

import torch
import torch.nn.functional as F

from methods import Batch
from mixbench import materials
from mixbench.data import Facts
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.timing.runs import facts_of

TIMES_THE_CACHE = 3
MOST_BYTES = 256 << 20
"""Of all batches together, where a machine's cache is larger than one would think."""

UNITS = {"K": 10, "M": 20, "G": 30}
"""Powers of two by which the system counts bytes."""

COARSE = 4
"""Pixels of a made-up picture that have about the same colour, along a side."""


@dataclass(frozen=True)
class Inputs:
    """Batches, which come by turns.

    Attributes:
        batches: images on the device, with a view of its own for each.
        facts: of the pictures.
        source: what they are.
        content: fingerprint of the data that they are of; "" where they are made up.
        official: whether these are the official release.
    """

    batches: Sequence[Batch]
    facts: Facts
    source: str
    content: str
    official: bool

    def __getitem__(self, number: int) -> Batch:
        """The batch of a round."""
        return self.batches[number % len(self.batches)]

    @property
    def images(self) -> int:
        """Of all batches."""
        return sum(len(batch.x) for batch in self.batches)


def inputs(run: Run, execution: Execution, streams: Streams, *, most: int) -> Inputs:
    """The batches of a measurement: as its setting is trained on them, or made up.

    Args:
        run: the measurement.
        execution: where the data are, and where the batches are to be.
        streams: draw the batches, and their views.
        most: batches; no more are made.

    Raises:
        ValueError: the data have fewer images than a batch.
        mixbench.data.DataError: they are missing or damaged.
    """
    content = None if run.made_up else materials.load(run, execution)[1]
    if content is None:
        facts, source = facts_of(run.setting), "made-up 8-bit pictures"
        found = _made_up(facts, run.batch_size, execution, streams.generator("pictures"))
    else:
        facts = materials.facts(run, execution)
        source, found = f"training images of {facts.label}", _trained_on(run, execution, streams)
    number = min(most, _needed(facts, run.batch_size, torch.device(execution.device)))
    batches = [
        replace(batch, view=torch.arange(run.batch_size) + place * run.batch_size)
        for place, batch in enumerate(islice(found, number))
    ]
    known = (content.fingerprint, content.official) if content else ("", False)
    return Inputs(batches, facts, source, *known)


def _trained_on(run: Run, execution: Execution, streams: Streams) -> Iterator[Batch]:
    """Whole batches of one epoch after the other.

    Raises:
        ValueError: there are none.
    """
    cropped = "resized_crop" if run.dataset == "imagenet" else "crop"
    images = materials.train_set(replace(run.subjects[0], augment=cropped), streams, execution)
    if len(images) < run.batch_size:
        raise ValueError(f"a batch has {run.batch_size} images, but {run.dataset} has only {len(images)} to train on")
    each = (images.epoch(streams, epoch, run.batch_size) for epoch in count())
    return (batch for batch in chain.from_iterable(each) if len(batch.x) == run.batch_size)


def _needed(facts: Facts, size: int, device: torch.device) -> int:
    bytes_of_one = 4 * size * facts.channels * facts.image_size**2
    return max(2, math.ceil(min(MOST_BYTES, TIMES_THE_CACHE * cache_bytes(device)) / bytes_of_one))


def cache_bytes(device: torch.device) -> int:
    """Of the last cache before the memory; where the system does not say, 32 MiB."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    told = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size[:-1]) << UNITS[size[-1]] for size in told if size[-1:] in UNITS), default=32 << 20)


def _made_up(facts: Facts, size: int, execution: Execution, generator: torch.Generator) -> Iterator[Batch]:
    """Batches of 8-bit images, smooth with noise over them."""
    layout = torch.channels_last if execution.channels_last else torch.contiguous_format
    side = math.ceil(facts.image_size / COARSE)
    while True:
        coarse = torch.rand(size, facts.channels, side, side, generator=generator)
        x = F.interpolate(coarse, (facts.image_size, facts.image_size), mode="bilinear", align_corners=False)
        x = (255 * (x + 0.05 * torch.randn(x.shape, generator=generator))).round().clamp(0, 255) / 255
        y = F.one_hot(torch.randint(facts.classes, (size,), generator=generator), facts.classes).float()
        yield Batch(x.to(execution.device).contiguous(memory_format=layout), y.to(execution.device))
