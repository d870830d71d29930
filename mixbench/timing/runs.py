"""Measurements of what methods cost, as runs: `timed`, `side_by_side`; and what holds of them. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mixbench import catalog
from mixbench.data import DATASETS, Facts
from mixbench.fields import LINKS
from mixbench.grid import Cell, Resources, Sweep, Table
from mixbench.nets import MODELS, SMALLEST
from mixbench.spec import Run

SEVERAL = "several"
"""What the method of a measurement is called: it is of no single one."""

SIMPLE = "simple"
"""The method whose training step the others' are measured by."""

CPU_MINUTES, MINI_MINUTES = 4.0, 1.0
"""How long rounds go on on the CPU, and in a trial, unless more is asked for."""

SET = ("task", "batch_size", "precision")
"""What a sweep of measurements may ``set:``; how its subjects would be trained is no part of them."""

FACTS_LIKE = ((128, "imagenet"), (64, "tiny_imagenet"), (0, "cifar10"))
"""As which data set made-up pictures are, from so many pixels a side on."""


def timed(run: Run, batch_size: int) -> Run:
    """What a clock can tell of a run: its mixer, whom that asks, the network and the pictures; in such batches."""
    about = {name: getattr(run, name) for name in ("method", "options", "dataset", "content", "image_size", "model")}
    return Run(**about, **{link: getattr(run, link) for link in LINKS}, epochs=1, batch_size=batch_size)


def side_by_side(subjects: Sequence[Run], **about: Any) -> Run:
    """The measurement of these subjects, see `timed`, which are of one setting.

    Args:
        subjects: with Simple among them.
        about: machine, precision and seed.

    Raises:
        ValueError: Simple is missing, or there are two of the same.
    """
    if not any(one.method == SIMPLE for one in subjects):
        raise ValueError(f"task: time gives each training step beside Simple's; add the row {SIMPLE}")
    if len(set(subjects)) < len(subjects):
        raise ValueError("two of its rows mix alike: with task: time only methods, their options and links count")
    one = subjects[0]
    same = {name: getattr(one, name) for name in ("dataset", "content", "image_size", "model", "batch_size")}
    return Run(task="time", method=SEVERAL, subjects=tuple(subjects), epochs=1, **same, **about)


def measured(cells: Sequence[Cell], said: Mapping[str, Any], machine: str) -> list[Cell]:
    """Cells of runs that train as cells of measurements: all of a column are of the same, of its rows side by side.

    Args:
        cells: with as many runs each, in the order of seeds.
        said: what the sweep sets, see `SET`.
        machine: by its name.

    Raises:
        ValueError: names the row that cannot be timed, or columns that are the same.
    """
    found = {}
    for column in dict.fromkeys(cell.column for cell in cells):
        rows = [cell for cell in cells if cell.column == column]
        searched = next((cell for cell in rows if cell.runs[0].task != "classify"), None)
        if searched is not None:
            raise ValueError(f"row {searched.row} is of task: {searched.runs[0].task}, and only methods can be timed")
        by_seed = zip(*(cell.runs for cell in rows), strict=True)
        found[column] = tuple(_of_a_seed(runs, said, machine) for runs in by_seed)
        other = next((name for name, runs in found.items() if name != column and runs == found[column]), None)
        if other is not None:
            raise ValueError(f"columns {other} and {column} differ in nothing that a clock could tell; leave one out")
    return [replace(cell, runs=found[cell.column]) for cell in cells]


def _of_a_seed(runs: Sequence[Run], said: Mapping[str, Any], machine: str) -> Run:
    one = runs[0]
    size = one.batch_size if one.mini else said.get("batch_size", Run.batch_size)
    about = {"machine": machine, "seed": one.seed, "mini": one.mini, "precision": said.get("precision", one.precision)}
    return side_by_side([timed(run, size) for run in runs], **about)


def sweep_of(runs: Sequence[Run]) -> Sweep:
    """A grid of measurements, each a column."""
    columns = {run: f"{run.setting}, {run.precision}" for run in runs}
    cells = tuple(Cell(catalog.label(one), columns[run], (run,)) for run in runs for one in run.subjects)
    names = {name: name for cell in cells for name in (cell.row, cell.column)}
    needs = {need for run in runs for need in run.needs()}
    return Sweep("time", cells, names, Table(), {run: Resources() for run in (*runs, *needs)}, places={})


def check_set(said: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what a sweep of measurements cannot set, and what its rows cannot.

    Raises:
        ValueError: names it.
    """
    idle = [key for key in said if key not in SET]
    if idle:
        raise ValueError(f"set: {idle[0]} says how to train, and task: time does not; it reads {', '.join(SET)}")
    setting = next((name for name, own in rows.items() if own), None)
    if setting is not None:
        raise ValueError(f"methods: {setting}: set: all rows are measured alike, with task: time; set it for the sweep")


def is_made_up(dataset: str) -> bool:
    """Whether a run of this data set is about made-up pictures, and the name is their side in pixels."""
    return dataset.isdecimal()


def facts_of(setting: str) -> Facts:
    """What holds of the pictures of a setting; of made-up ones, as of the data set with the next smaller pictures.

    Raises:
        ValueError: there is no such data set or model, or its pictures are too small for it.
    """
    dataset, _, model = setting.rpartition("/")
    if not dataset:
        raise ValueError(f"'{setting}' is no setting; write dataset/model, like cifar10/resnet8")
    if model not in MODELS:
        raise ValueError(f"there is no model '{model}'; there are: {', '.join(MODELS)}")
    if dataset in DATASETS:
        facts = DATASETS[dataset]
    elif is_made_up(dataset):
        like = next(name for least, name in FACTS_LIKE if int(dataset) >= least)
        facts = replace(DATASETS[like], label=f"{dataset} pixels", image_size=int(dataset))
    else:
        raise ValueError(f"there is no data set '{dataset}'; there are: {', '.join(DATASETS)}; or take --size")
    if facts.image_size < SMALLEST[model]:
        raise ValueError(
            f"{setting}: pictures of {facts.image_size} pixels are too small for {model}, which needs {SMALLEST[model]}"
        )
    return facts
