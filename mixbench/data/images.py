"""What a task is given: images on the device, batch by batch, wherever they lie; `Images`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from methods.base import Batch
from mixbench.streams import Streams


class Images(ABC):
    """The training or test images of a run.

    Attributes:
        ids_below: more than the id of any view; None where views are not finite in number and have no ids.
    """

    ids_below: int | None

    @abstractmethod
    def __len__(self) -> int: ...

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch. A rest that fills no batch is a smaller one.

        A rest of one image is left out: batch normalisation has nothing to normalise a single image by.
        """
        full, rest = divmod(len(self), batch_size)
        return full + (rest > 1)

    def numbers(self, batch: Batch) -> Tensor:
        """Which images a batch is of, (N,) int64 on the CPU; -1 where views have no ids to say so."""
        return torch.full((len(batch.x),), -1)

    @abstractmethod
    def epoch(self, streams: Streams, epoch: int, batch_size: int, *, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, each image once, from step ``skip`` on.

        Order and views depend on the seed and the epoch, neither on the batch size nor on where it is taken up.
        """

    @abstractmethod
    def test_batches(
        self, batch_size: int, *, order: Tensor | None = None, first_id: int | None = None
    ) -> Iterator[Batch]:
        """All images, neither cropped at random nor flipped.

        Args:
            batch_size: the last batch has what is left.
            order: int64 on the CPU, the images and their order; None: all, as they are.
            first_id: the id of the first image's view, the others' follow; None: they have none.
        """
