"""How the images of an epoch are divided: into batches, and each batch among the processes that train together."""

from __future__ import annotations

from dataclasses import dataclass

LEAST = 2
"""Images of a process in every batch: batch normalisation has nothing to normalise a single one by."""


@dataclass(frozen=True)
class Share:
    """What one process has of every batch: the ``rank``-th part, in order, of as many as there are processes.

    What fills no batch at the end of an epoch is a smaller one, divided as evenly as can be; where that would leave a
    process fewer than `LEAST` images, it is left out.

    Attributes:
        rank: from 0 on.
        of: how many processes there are.
    """

    rank: int = 0
    of: int = 1

    def steps(self, images: int, batch_size: int) -> int:
        """Batches of an epoch."""
        full, rest = divmod(images, batch_size)
        return full + (rest >= LEAST * self.of)

    def part(self, step: int, images: int, batch_size: int) -> slice:
        """Which of an epoch's images, in their order, are its own in a step, counted from 0."""
        first, count = step * batch_size, self._count(step, images, batch_size)
        return slice(first + count * self.rank // self.of, first + count * (self.rank + 1) // self.of)

    def weight(self, step: int, images: int, batch_size: int) -> float:
        """By what its mean over its part counts, for the mean of all processes to be that of the batch: 1 mostly."""
        count = self._count(step, images, batch_size)
        return len(range(count)[self.part(0, count, count)]) * self.of / count

    def smallest(self, images: int, batch_size: int) -> int:
        """The fewest images that any process ever has."""
        rest = images % batch_size
        return (rest if rest >= LEAST * self.of else min(batch_size, images)) // self.of

    def _count(self, step: int, images: int, batch_size: int) -> int:
        """Images of a batch, all processes together."""
        return min(batch_size, images - step * batch_size)


WHOLE = Share()
"""All of every batch: that of a process which trains alone."""
