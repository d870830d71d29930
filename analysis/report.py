"""What ``mixbench report`` prints: the table of a sweep file, made anew or given again."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import answers

if TYPE_CHECKING:
    from analysis.grid import Grid
    from mixbench.grid import Sweep
    from mixbench.store import Store


def report(
    path: Path,
    store: Store,
    *,
    form: str,
    metric: str,
    command: str,
    data: Path,
    mini: bool = False,
    machine: str | None = None,
) -> str:
    """The text of a sweep's table.

    Args:
        path: the sweep file.
        store: where the results are.
        form: ``md``, Markdown, or ``csv``.
        metric: which value of a run counts, or a metric, see `analysis.readings.asked`.
        command: what to type so that the missing runs are made.
        data: where the data sets are, see `mixbench.resolve.load_sweep`.
        mini: as a trial on a small machine, likewise.
        machine: whose times, of a sweep of measurements; None: see `analysis.timereport.on_a_machine`.

    Raises:
        ValueError: as `mixbench.resolve.load_sweep`, `analysis.table.build` and `analysis.timereport`.
    """
    question = (path, store.root, data, form, metric, mini, command, machine)
    answer = answers.Answer(store.root, list(map(str, question)))
    text = answer.kept()
    if text is not None:
        return text

    from analysis import paper, render, table  # needed only where the table is made anew
    from mixbench.recipes import shared
    from mixbench.resolve import load_sweep

    with _uncollected():
        answer.look_at([*answers.code(), path, *shared(path), *paper.places(store.root)])
        sweep = load_sweep(
            path, data=data, results=store.root, mini=mini, machine=None if machine is None else lambda: machine
        )
        if sweep.is_timed:
            return _timed(sweep, store, form=form, metric=metric, command=command, is_named=machine is not None)
        if machine is not None:
            raise ValueError(f"--machine {machine}: {path} has no times; leave it out")
        runs = (run for cell in sweep.cells for run in cell.runs)
        answer.look_at(store.result_files(one for run in runs for one in (run, *run.needs())))
        grid = table.build(sweep, store, metric)
        text = render.csv(grid) if form == "csv" else render.markdown(grid, command)
        if _is_made_of_results_alone(grid):
            answer.keep(text)
    return text


def _timed(sweep: Sweep, store: Store, *, form: str, metric: str, command: str, is_named: bool) -> str:
    """The text of a sweep of measurements, whose machine the user has named or not."""
    from analysis import timereport

    if metric != "last":
        raise ValueError(f"--metric {metric}: {sweep.name} has times and no such metric; leave it out")
    there = timereport.on_a_machine(sweep, store, is_named=is_named)
    return timereport.text(there, store, command, form=form)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Inside, Python looks for no garbage: among thousands of results that all stay, it would find none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _is_made_of_results_alone(grid: Grid) -> bool:
    """Whether nothing else was read: no word on what is not done, no curve, own picture or other package's mixer."""
    from analysis.footnotes import all_of
    from mixbench import catalog

    methods = {run.method for cell in grid.sweep.cells for run in all_of(cell.runs[0])}
    return (
        grid.metric == "last"
        and not grid.gathered.unfinished
        and not grid.sweep.places
        and all(catalog.is_ours(method) for method in methods)
    )
