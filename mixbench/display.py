"""Shows a launcher's work: live lines on a terminal, plain lines in a pipe, nothing but bad news when quiet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mixbench.spec import Run
from mixbench.watching import Standing

BAD = ("failed", "lost", "blocked")

SHOWN: Mapping[str, str] = MappingProxyType({"top1": ".1f", "excess": ".2f", "tau": ".2f", "stored": ",.0f"})
"""The metrics that tell how a run goes, where it has them, and their formats."""

WIDE = 130
"""Columns of a terminal from which a run's whole name and all its figures stand beside its bar."""

LINE_SECONDS = 60.0
"""Between two lines of one run, where output is no terminal."""


class Quiet:
    """Says what went wrong and what was recovered, on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ending: object) -> None:
        pass

    def started(self, run: Run) -> None:
        """A run began."""

    def moved(self, run: Run, at: Standing) -> None:
        """A run goes on."""

    def ended(self, run: Run, state: str, text: str) -> None:
        """A run ended."""
        if state in BAD:
            self.console.print(f"{state}: {run.folder}: {text}")

    def told(self, sentence: str) -> None:
        """Something was recovered."""
        self.console.print(sentence)


class Lines(Quiet):
    """One line for each run that ends, with how many there are, and the time left as far as it can be told.

    Args:
        total: runs.
        aside: on standard error, where standard output is for something else.
    """

    def __init__(self, total: int, *, aside: bool = False) -> None:
        super().__init__()
        self.console = Console(stderr=aside, highlight=False, soft_wrap=True, markup=False)
        self._total = total
        self._ended = 0
        self._begun = time.monotonic()
        self._standings: dict[Run, Standing] = {}
        self._said: dict[Run, float] = {}

    def started(self, run: Run) -> None:
        """Start the clock of its lines."""
        self._said[run] = time.monotonic()

    def moved(self, run: Run, at: Standing) -> None:
        """Keep it for the line that ends the run; once in a while, a line of its own for a long run."""
        self._standings[run] = at
        if time.monotonic() - self._said.get(run, 0) > LINE_SECONDS:
            self._said[run] = time.monotonic()
            self.console.print(", ".join([f"{run.folder} at {100 * at.steps / at.of:.0f} %", *figures(at)]))

    def ended(self, run: Run, state: str, text: str) -> None:
        """A run ended, or is waited for."""
        if state == "elsewhere":
            self.console.print(f"{run.folder} {text}")
            return
        if state == "stopped":
            self.console.print(f"{run.folder} stopped {text}")
            return
        self._ended += 1
        why = f": {text}" if text else ""
        what = f"[{self._ended}/{self._total}] {run.folder} {state}{why}"
        said = figures(self._standings[run]) if run in self._standings else []
        self.console.print(", ".join([what, *said, *self._left()]))

    def _left(self) -> list[str]:
        seconds = (time.monotonic() - self._begun) / self._ended * (self._total - self._ended)
        return [f"about {duration(seconds)} left"] if self._ended < self._total else []


class Live(Lines):
    """A bar for the whole and one for each run at work."""

    def __init__(self, total: int, *, aside: bool = False) -> None:
        super().__init__(total, aside=aside)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
        )
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._all = self._progress.add_task("all runs", total=total, figures="")
        self._bars: dict[Run, TaskID] = {}
        self._is_wide = self.console.width >= WIDE

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *ending: object) -> None:
        self._progress.stop()

    def started(self, run: Run) -> None:
        """Give the run a bar."""
        name = run.folder if self._is_wide else run.folder.rpartition("-")[0]
        self._bars[run] = self._progress.add_task(name, total=None, figures="")

    def moved(self, run: Run, at: Standing) -> None:
        """Move its bar."""
        self._standings[run] = at
        known = figures(at) if self._is_wide else figures(at)[:1]
        self._progress.update(self._bars[run], completed=at.steps, total=at.of, figures=", ".join(known))

    def ended(self, run: Run, state: str, text: str) -> None:
        """Replace its bar by a line."""
        if run in self._bars:
            self._progress.remove_task(self._bars.pop(run))
        super().ended(run, state, text)
        self._progress.update(self._all, completed=self._ended)

    def _left(self) -> list[str]:
        return []  # the bar of the whole shows it


def figures(at: Standing) -> list[str]:
    """``["excess 2.31", "tau 0.72", "5,400 images/s"]``: what is known of a run at work."""
    known = [f"{name} {at.metrics[name]:{form}}" for name, form in SHOWN.items() if name in at.metrics]
    return known + ([f"{at.images_per_second:,.0f} images/s"] if at.images_per_second else [])


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(count: int, what: str) -> str:
    """``1 run``, ``2,000 runs``."""
    return f"{count:,} {what}{'s' if count != 1 else ''}"
