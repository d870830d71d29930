"""What a method costs against what it brings: a figure of a measurement and of finished runs. Without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import figures
from analysis.stats import t_interval
from analysis.timetable import Line, Part
from mixbench import catalog
from mixbench.result import Result
from mixbench.spec import Run
from mixbench.store import Store

Accuracies = Mapping[str, Mapping[str, Sequence[float]]]
"""Top-1 of the last epoch in percent, of several seeds, by setting and by what tables call the row."""

SIDE = 3.6
"""Inches of a part."""

MARKERS = "os^Dv"
"""One for each ten colours: methods that lie close together are told apart in the legend, not where they are."""


def accuracies(settings: Sequence[str], store: Store) -> Accuracies:
    """What finished runs of these settings came to; of several protocols, under the one of most methods.

    Raises:
        ValueError: none of them has a finished run.
    """
    found = {setting: _of_one_protocol(setting, store) for setting in settings}
    if not any(found.values()):
        raise ValueError(
            f"--plot sets costs against accuracies, but no run of {' or '.join(settings)} has finished in "
            f"{store.root}; `mixbench run SWEEP` makes some"
        )
    return found


def _of_one_protocol(setting: str, store: Store) -> dict[str, list[float]]:
    """Top-1 by row, over the seeds of runs that were trained alike."""
    there = [run for run in store.known() if (run.setting, run.task, run.mini) == (setting, "classify", False)]
    results = [(run, result, _protocol(run, result)) for run in there if (result := store.recorded(run)) is not None]
    if not results:
        return {}
    rows = {(protocol, run.method, run.options) for run, _, protocol in results}
    ((chosen, _),) = Counter(protocol for protocol, *_ in rows).most_common(1)
    values: dict[str, list[float]] = {}
    for run, result, protocol in results:
        if protocol == chosen:
            values.setdefault(catalog.label(run), []).append(result.metrics["top1"])
    return values


def _protocol(run: Run, result: Result) -> tuple[Run, str]:
    """All of a run but its method, its seed and whom it asks; and on which data it was trained."""
    return replace(run, method="simple", options=(), seed=0, teacher=None, policy=None, bank=None), result.content


def write(parts: Sequence[Part], found: Accuracies, path: Path) -> None:
    """Draw the parts side by side into a file.

    Raises:
        OSError: it cannot be written.
    """
    figures.save(lambda: draw(parts, found), path)


def draw(parts: Sequence[Part], found: Accuracies) -> Figure:
    """A point for each method whose accuracy is known: its training step over Simple's, and its accuracy."""
    drawn = [part for part in parts if found.get(part.setting)]
    figure = Figure(figsize=(SIDE * 1.5 * len(drawn), SIDE), layout="constrained")
    for axes, part in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        for number, line in enumerate(part.lines):
            _draw_point(axes, line, found[part.setting].get(line.label, ()), number)
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        axes.set_title(f"{part.setting}, {part.precision}", fontsize="small")
        axes.set_xlabel("training step, times Simple's")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.grid(alpha=0.3)
    figure.supxlabel("bars: 95 % intervals; in brackets: seeds", fontsize="x-small")
    return figure


def undrawn(parts: Sequence[Part], found: Accuracies) -> Iterator[str]:
    """Which methods of each part have no point, a sentence each."""
    for part in parts:
        missing = [line.label for line in part.lines if line.steps is None or not found[part.setting].get(line.label)]
        if missing:
            yield (
                f"not drawn for {part.setting}: {', '.join(missing)}; the step was not timed, or no finished run has "
                f"the options that were timed and the protocol of most methods"
            )


def _draw_point(axes: Axes, line: Line, values: Sequence[float], number: int) -> None:
    """A method with its intervals: of the ratio, and of the mean over at least three seeds."""
    if not values or line.steps is None:
        return
    cost, mean = line.steps.value, fmean(values)
    sides = line.steps.interval or (cost, cost)
    low, high = t_interval(values) or (mean, mean)
    axes.errorbar(
        [cost],
        [mean],
        xerr=[[max(0.0, cost - sides[0])], [max(0.0, sides[1] - cost)]],
        yerr=[[mean - low], [high - mean]],
        color=f"C{number % 10}",
        fmt=MARKERS[number // 10 % len(MARKERS)],
        markersize=4,
        linewidth=1,
        label=f"{line.label} ({len(values)})",
    )
