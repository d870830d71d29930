"""How long what there is to do would take, and from what that is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mixbench import catalog
from mixbench.display import duration
from mixbench.files import DamagedError
from mixbench.grid import Sweep, of_any_seed
from mixbench.spec import Run
from mixbench.store import Store

SEARCH_PASSES = 1.33
"""What a step of a search costs: the teacher forth and back for the mixed images, and forth for the maps."""


@dataclass(frozen=True)
class Estimate:
    """What some runs would take, one after the other.

    Attributes:
        measured: seconds of those like which others have finished in these results, where those ran.
        measured_runs: how many these are.
        told: hours on one GPU, in float32, of those whose recipes say what Simple takes.
        told_runs: how many these are.
        unknown: how many are neither.
    """

    measured: float
    measured_runs: int
    told: float
    told_runs: int
    unknown: int

    def sentences(self) -> Iterator[str]:
        """In words, with what each figure is from; nothing where there is nothing to do."""
        if self.measured_runs:
            yield f"{_runs(self.measured_runs)} would take {duration(self.measured)}, by what other seeds took here"
        if self.told_runs:
            hours = f"{self.told:.1f}" if self.told < 100 else f"{self.told:.0f}"
            yield f"{_runs(self.told_runs)} would take {hours} GPU-hours in float32: Simple's by recipe, times passes"
        if self.unknown:
            yield f"{_runs(self.unknown)}: unknown, neither recipes nor runs of other seeds say how long"


def estimate(todo: Sequence[Run], sweep: Sweep, store: Store) -> Estimate:
    """What these runs of a sweep would take.

    A run is like a finished one if nothing but seeds differ, links included.
    """
    took: dict[tuple[Any, ...], list[float]] = {}
    for run in store.known():
        with contextlib.suppress(DamagedError):  # what is damaged is told by those who need it
            result = store.recorded(run)
            if result is not None:
                took.setdefault(of_any_seed(run), []).append(result.seconds)
    trained = [run for run in todo if run.task != "import"]  # an import takes moments
    measured = [fmean(took[like]) for run in trained if (like := of_any_seed(run)) in took]
    rest = [run for run in trained if of_any_seed(run) not in took]
    told = [sweep.hours[run] * passes(run) for run in rest if run in sweep.hours]
    return Estimate(sum(measured), len(measured), sum(told), len(told), len(rest) - len(told))


def passes(run: Run) -> float:
    """What a step of a run costs, in steps of Simple."""
    return SEARCH_PASSES if run.task == "search" else catalog.declaration(run.method).passes


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"
