"""What a training needs of whoever keeps its state and hears how it goes: `Keeper`. Without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol


class Keeper(Protocol):
    """A run's attempt; or, in each of several processes that train it, what stands there for it: see `mixbench.team`.

    Attributes:
        rank: of the process, among those that train together.
    """

    rank: int

    @property
    def tell(self) -> Callable[[str], None]:
        """Says one sentence to the user."""
        ...

    def begin(self, content: str) -> None:
        """Say on which data the run is begun, see `mixbench.attempts.Attempt.begin`."""
        ...

    def log(self, **row: float | int | None) -> None:
        """Note what an epoch gave."""
        ...

    def due(self, *, epoch_over: bool) -> bool:
        """Whether to save now; asked by all processes at the same steps, and answered alike."""
        ...

    def gathered(self, own: bytes) -> list[bytes]:
        """What a checkpoint is to hold of each other process, in order, for the one that writes it."""
        ...

    def save(self, step: int, state: bytes) -> None:
        """Write a checkpoint, see `mixbench.attempts.Attempt.save`."""
        ...

    def saved(self) -> Iterator[bytes]:
        """States to go on from, the newest first."""
        ...

    def mean(self, losses: list[float]) -> list[float]:
        """The mean over all processes, of each."""
        ...
