"""How far a run is, told to its launcher and written down for whoever looks from outside: `Progress`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mixbench.spec import Run

TOLD_EVERY_SECONDS = 0.5


class Standing(Protocol):
    """What keeps where a run stands."""

    def stand(self, standing: Mapping[str, Any]) -> None:
        """See `mixbench.attempts.Attempt.stand`."""
        ...


class Progress:
    """Tells how far a run is, now and then."""

    def __init__(self, run: Run, attempt: Standing, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._run = run
        self._attempt = attempt
        self._tell = tell
        self._told = self._begun = time.monotonic()
        self._first: int | None = None
        self._steps = self._of = 0

    def __call__(self, steps: int, of: int, metrics: Mapping[str, float]) -> None:
        """A step is over."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._begun = steps, now
        self._steps, self._of = steps, of
        if now - self._told >= TOLD_EVERY_SECONDS:
            self._told = now
            self._say(metrics)

    def over(self, metrics: Mapping[str, float]) -> None:
        """All steps are done, and this is what came out."""
        if not self._of:  # an import, or what was stopped behind its last step
            self._first = self._steps = self._of = 1
        self._say(metrics)

    def _say(self, metrics: Mapping[str, float]) -> None:
        standing = {"steps": self._steps, "of": self._of, "metrics": dict(metrics), **self.rate()}
        self._attempt.stand(standing)
        self._tell({"event": "progress", "run": self._run.id, **standing})

    def rate(self) -> dict[str, float]:
        """Training images a second of this attempt, evaluations included, each batch as a full one."""
        seconds, steps = time.monotonic() - self._begun, self._steps - (self._first or 0)
        trained = steps if self._run.task != "time" else 0
        return {"images_per_second": trained * self._run.batch_size / seconds} if trained and seconds else {}
