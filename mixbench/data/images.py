"""What a task is given: images on the device, batch by batch, wherever they lie; `Images`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from methods.base import Batch
from mixbench.shares import WHOLE, Share
from mixbench.streams import Streams


class Images(ABC):
    """The training or test images of a run.

    Attributes:
        ids_below: more than the id of any view; None where views are not finite in number and have no ids.
    """

    ids_below: int | None

    @abstractmethod
    def __len__(self) -> int: ...

    def steps(self, batch_size: int, *, share: Share = WHOLE) -> int:
        """Batches of an epoch. A rest that fills no batch is a smaller one, unless it is too small, see `Share`."""
        return share.steps(len(self), batch_size)

    def parts(self, batch_size: int, *, skip: int, share: Share) -> list[slice]:
        """Which of an epoch's images, in their order, each batch has of this share, from step ``skip`` on."""
        steps = range(skip, self.steps(batch_size, share=share))
        return [share.part(step, len(self), batch_size) for step in steps]

    def numbers(self, batch: Batch) -> Tensor:
        """Which images a batch is of, (N,) int64 on the CPU; -1 where views have no ids to say so."""
        return torch.full((len(batch.x),), -1)

    @abstractmethod
    def epoch(
        self, streams: Streams, epoch: int, batch_size: int, *, skip: int = 0, share: Share = WHOLE
    ) -> Iterator[Batch]:
        """The batches of one epoch, each image once, from step ``skip`` on; of each batch what the share has of it.

        Order and views depend on the seed and the epoch, neither on the batch size nor on where it is taken up; and
        what all shares have of a step is, together, the batch that a process has which trains alone.
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
