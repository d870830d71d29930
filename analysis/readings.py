"""What each run of a sweep says: its metrics, or why there are none."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from analysis import stats
from mixbench.execution import ALWAYS_EVALUATED
from mixbench.files import DamagedError
from mixbench.grid import Sweep
from mixbench.result import Result, StaleResultError
from mixbench.spec import EMA, Run
from mixbench.store import Store

COUNTED: Mapping[str, str] = MappingProxyType(
    {
        "last": "last epoch",
        "median10": f"median of the last {ALWAYS_EVALUATED} epochs on the test set, a selection on the test set",
        "best": "best of the evaluated epochs by top-1, chosen on the test set, so higher than new images would give",
    }
)
"""Which value of a run counts, and what a caption must say of it."""


METRIC = re.compile(r"(\w+_)?(top1|top5)")
"""The name of an accuracy: a run's own, or that of a network beside its own, ``ema_top1``."""


@dataclass(frozen=True)
class Reading:
    """What a finished run says: ``values`` are those of its metrics that the table shows."""

    run: Run
    result: Result
    values: Mapping[str, float]


@dataclass(frozen=True)
class Gathered:
    """What the runs of a sweep say, each asked once.

    Attributes:
        readings: of the finished ones.
        unfinished: those that ``mixbench run`` would make, a damaged result's among them.
        failed: those of them that failed, which it tries again only when asked to.
        problems: why a result is damaged, or cannot be used; a sentence by run.
        warnings: what went wrong in making it, or what it needs; a sentence by the run in which it did.
        asked: how many different runs there should be.
    """

    readings: Mapping[Run, Reading]
    unfinished: tuple[Run, ...]
    failed: tuple[Run, ...]
    problems: Mapping[Run, str]
    warnings: Mapping[Run, str]
    asked: int


class _UnusableError(ValueError):
    """A run is done, but its curve does not hold what is asked for."""


def asked(sweep: Sweep, metric: str) -> tuple[Sweep, str]:
    """The sweep, and which value of a run its table shows: a key of `COUNTED`.

    Args:
        sweep: whose table.
        metric: that key; or the name of a metric, which is shown of the last epoch instead of ``table.cell``.

    Raises:
        ValueError: it is neither.
    """
    if metric in COUNTED:
        return sweep, metric
    if not METRIC.fullmatch(metric):
        raise ValueError(
            f"'{metric}' is no value of a run that a table can show; choose of {', '.join(COUNTED)}, or name a metric, "
            f"like ema_top1"
        )
    return replace(sweep, table=replace(sweep.table, cell=f"{{{metric}:.2f}}")), "last"


def gather(sweep: Sweep, store: Store, metric: str) -> Gathered:
    """What every run in the sweep's cells says.

    Args:
        sweep: whose runs.
        store: where their results are.
        metric: a key of `COUNTED`.

    Raises:
        ValueError: ``table.cell`` asks for a metric that a result has not.
    """
    names = list(sweep.table.metrics())
    readings: dict[Run, Reading] = {}
    unfinished: list[Run] = []
    problems: dict[Run, str] = {}
    runs = dict.fromkeys(run for cell in sweep.cells for run in cell.runs)
    for run in runs:
        try:
            result = store.result(run)
            if result is None:
                unfinished.append(run)
                continue
            _check_names(sweep, run, result, names)
            readings[run] = Reading(run, result, _values(run, result, store, metric, names))
        except DamagedError as error:
            unfinished.append(run)
            problems[run] = f"{error}; the run counts as missing and will be made again"
        except (StaleResultError, _UnusableError) as error:
            problems[run] = str(error)
    failed = tuple(run for run in unfinished if (store.ending(run) or {}).get("state") == "failed")
    warnings = _warnings(readings, store)
    return Gathered(readings, tuple(unfinished), failed, problems, warnings, len(runs))


def _warnings(readings: Mapping[Run, Reading], store: Store) -> dict[Run, str]:
    """What the results of these runs, and of those that they need, warn of."""
    results: dict[Run, Result | None] = {}
    for run, reading in readings.items():
        results[run] = reading.result
        for need in run.needs():
            if need not in readings and need not in results:
                with contextlib.suppress(DamagedError):  # `mixbench run` tells, and makes it again
                    results[need] = store.recorded(need)
    return {run: result.notes["warning"] for run, result in results.items() if result and "warning" in result.notes}


def _values(run: Run, result: Result, store: Store, metric: str, names: Sequence[str]) -> dict[str, float]:
    if metric == "last":
        return {name: result.metrics[name] for name in names}
    redo = "delete its folder and run it again, or show the last epoch"
    try:
        rows = store.curve(run)
    except DamagedError as error:
        raise _UnusableError(f"{error}; {redo}") from error
    rows = [row for row in rows if row["epoch"] > 0]  # what nobody trained is no value of a run
    curves = {name: {int(row["epoch"]): row[name] for row in rows if name in row} for name in names}
    last = set(range(max(1, run.epochs - ALWAYS_EVALUATED + 1), run.epochs + 1))
    # Those epochs are always evaluated: a curve without them is not the whole curve, whatever is asked of it.
    lacking = sorted(set().union(*(last - set(curve) for curve in curves.values())))
    if lacking:
        epochs = ", ".join(map(str, lacking))
        raise _UnusableError(f"the curve of {run.folder} lacks epoch {epochs} of {run.epochs}; {redo}")
    if metric == "median10":
        return {name: stats.median_of_last(list(curve.values()), ALWAYS_EVALUATED) for name, curve in curves.items()}
    # One epoch for all metrics: the best top-1 and the best top-5 of different epochs belong to no network.
    best = stats.best([row for row in rows if "top1" in row], by="top1")
    return {name: best[name] for name in names}


def _check_names(sweep: Sweep, run: Run, result: Result, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in result.metrics]
    if unknown:
        there = ", ".join(result.metrics)
        averaged = any(name.startswith(EMA) for name in unknown)
        hint = "; an average of its weights comes of ema: 0.999, say, in the recipe or under set:" if averaged else ""
        raise ValueError(
            f"{sweep.name}: table.cell is '{sweep.table.cell}', but {run.folder} has no metric "
            f"'{', '.join(unknown)}'; it has: {there}{hint}"
        )
