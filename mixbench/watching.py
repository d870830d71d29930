"""What a launcher's work is shown to: `Watcher`, who learns where each run stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mixbench.spec import Run


@dataclass(frozen=True)
class Standing:
    """Where a run at work stands.

    Attributes:
        steps, of: steps done, and steps in all.
        metrics: of the last evaluated epoch; none before.
        images_per_second: None before it can be told.
    """

    steps: int
    of: int
    metrics: Mapping[str, float]
    images_per_second: float | None


class Watcher(Protocol):
    """Is shown what happens."""

    def started(self, run: Run) -> None:
        """A run began."""

    def moved(self, run: Run, at: Standing) -> None:
        """A run goes on."""

    def ended(self, run: Run, state: str, text: str) -> None:
        """A run ended: done, elsewhere, left, stopped, failed, lost, blocked; ``text`` says why."""

    def told(self, sentence: str) -> None:
        """Something was recovered, or is worth knowing."""
