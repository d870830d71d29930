"""The grid of a table: `Cell`, one experiment under several seeds, and `Sweep`, all cells of one file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from string import Formatter
from typing import Any

from mixbench.fields import LINKS
from mixbench.spec import Run


@dataclass(frozen=True)
class Cell:
    """One cell of a table: the same experiment under several seeds.

    Attributes:
        row: the row's name in the sweep file, ``transformmix_k2``; also its name among the paper's figures.
        column: the column's setting, ``cifar100/wrn28_10``, with the recipe laid over it, if any.
        runs: the experiment, once per seed; an import, which is the same run for every seed, once.
    """

    row: str
    column: str
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        """Refuse runs that differ in more than their seeds: their average would be of unlike things."""
        object.__setattr__(self, "runs", tuple(dict.fromkeys(self.runs)))
        unlike = {of_any_seed(run) for run in self.runs}
        if len(unlike) > 1:
            raise ValueError(f"row {self.row}, column {self.column}: its runs differ in more than their seed")


@dataclass(frozen=True)
class Resources:
    """How a run is computed, as its recipes say; no part of any identity."""

    evaluate_every: int = 1  # epochs; the last ten are always evaluated
    checkpoint_seconds: float = 30.0  # the least time between two checkpoints at epoch ends
    cpus: int | None = None  # of each of its processes, on a cluster; None: see `mixbench.slurm.arrays`
    mem_gb: float | None = None  # of memory, on a cluster


@dataclass(frozen=True)
class Table:
    """How a sweep's report looks: the ``table:`` of its file.

    Attributes:
        caption: the sentence above it.
        cell: a format string over metrics, ``"{top1:.2f} / {top5:.2f}"``.
        compare: the row to which paired differences are printed; "" for none.
        note: a sentence below it.
        paper: number of the paper's table whose figures stand beside ours; None for none.
        unlike: fields of a run in which rows of a column may differ; the table says so.
    """

    caption: str = ""
    cell: str = "{top1:.2f}"
    compare: str = ""
    note: str = ""
    paper: int | None = None
    unlike: tuple[str, ...] = ()

    def metrics(self) -> dict[str, str]:
        """The metrics that `cell` shows, each with its format: ``{"top1": ".2f"}``.

        Raises:
            ValueError: it is no text with numbers in it.
        """
        try:
            fields = [(name, spec, how) for _, name, spec, how in Formatter().parse(self.cell) if name is not None]
        except ValueError as error:
            raise ValueError(
                f"cell is '{self.cell}', which is no format ({error}); write it like {{top1:.2f}}"
            ) from None
        if not fields or any(how or not re.fullmatch(r"\d*\.\d+f", spec or "") for _, spec, how in fields):
            raise ValueError(f"cell is '{self.cell}'; each number in it must be written like {{top1:.2f}}")
        return {name: spec or "" for name, spec, _ in fields}


@dataclass(frozen=True)
class Sweep:
    """A grid of cells and how its table looks.

    Attributes:
        name: the stem of its file.
        cells: in the order of the table, row by row.
        labels: how the table prints the names of rows and columns.
        table: how the report looks.
        resources: of each run.
        places: where own image folders and checkpoints lie, by the fingerprint of their content.
        hours: what each run would take on one GPU if its method were Simple, where recipes say so.
        mini: whether all of it is a trial on a small machine.
    """

    name: str
    cells: tuple[Cell, ...]
    labels: Mapping[str, str]
    table: Table
    resources: Mapping[Run, Resources]
    places: Mapping[str, str]
    hours: Mapping[Run, float] = field(default_factory=dict)
    mini: bool = False

    def __post_init__(self) -> None:
        """Refuse a column whose runs followed unlike recipes: they would not be comparable."""
        for column in self.columns:
            alike = {_protocol(cell.runs[0], self.table.unlike) for cell in self.cells if cell.column == column}
            if len(alike) > 1:
                differing = ", ".join(_differing(*sorted(alike, key=repr)[:2]))
                raise ValueError(
                    f"column {column}: its rows are trained by unlike recipes, they differ in {differing}; "
                    "make them alike, or name these fields under table: in 'unlike:'"
                )

    @property
    def is_timed(self) -> bool:
        """Whether its runs are measurements of what methods cost; then all of them are."""
        return any(run.task == "time" for cell in self.cells[:1] for run in cell.runs)

    def on(self, machine: str) -> Sweep:
        """A sweep of measurements, of another machine."""
        cells = (replace(cell, runs=tuple(replace(run, machine=machine) for run in cell.runs)) for cell in self.cells)
        return replace(self, cells=tuple(cells))

    @property
    def rows(self) -> list[str]:
        """Names of the rows, in order."""
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        return list(dict.fromkeys(cell.column for cell in self.cells))

    def only(self, rows: Sequence[str]) -> Sweep:
        """The same sweep with these rows alone; what they need is still in its stages.

        Raises:
            ValueError: it has no such row.
        """
        if self.is_timed:
            raise ValueError("its rows are measured side by side, all or none; some alone: mixbench time --methods")
        # A row with a list of values became one for each, ``mixup[alpha=0.2]``; its name stands for them all.
        meant = {row: [one for one in self.rows if one == row or one.startswith(f"{row}[")] for row in rows}
        unknown = [row for row, found in meant.items() if not found]
        if unknown:
            raise ValueError(f"{self.name} has no row {', '.join(unknown)}; its rows: {', '.join(self.rows)}")
        kept = {row for found in meant.values() for row in found}
        return replace(self, cells=tuple(cell for cell in self.cells if cell.row in kept))

    def asked_by(self) -> dict[Run, str]:
        """Who asks for each run: its row, or the row that needs it and by which links, ``lr -> teacher simple``."""
        several = len(self.columns) > 1
        found: dict[Run, str] = {}
        for cell in self.cells:
            for run in cell.runs:
                found.setdefault(run, f"{cell.row}, {cell.column}" if several else cell.row)
        waiting = list(found)
        for run in waiting:  # which grows meanwhile: the needs of a need come behind all that is nearer to a row
            for link, need in run.links():
                if need not in found:
                    found[need] = f"{found[run]} -> {link} {need.method}"
                    waiting.append(need)
        return found

    def stages(self) -> list[list[Run]]:
        """Everything that is needed, each run once, in stages: a run stands behind all that it needs."""
        depth: dict[Run, int] = {}

        def place(run: Run) -> int:
            if run not in depth:
                depth[run] = 1 + max((place(need) for need in run.needs()), default=-1)
            return depth[run]

        for cell in self.cells:
            for run in cell.runs:
                place(run)
        return [[run for run in depth if depth[run] == stage] for stage in range(max(depth.values(), default=-1) + 1)]


def of_any_seed(run: Run) -> tuple[Any, ...]:
    """The experiment without its seeds, links included: equal for runs that differ in nothing else."""
    needs = (getattr(run, link) for link in LINKS)
    subjects = (of_any_seed(subject) for subject in run.subjects)
    return _BUT_SEEDS(run), *(need and of_any_seed(need) for need in needs), *subjects


_BUT_SEEDS = attrgetter(*(one.name for one in fields(Run) if one.name not in ("seed", "subjects", *LINKS)))


def _protocol(run: Run, unlike: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """All of a run but what a row may choose: method, options, seed and links, and what the table allows."""
    free = {"method", "options", "seed", *LINKS, *unlike}
    return tuple((one.name, getattr(run, one.name)) for one in fields(run) if one.name not in free)


def _differing(one: tuple[tuple[str, Any], ...], other: tuple[tuple[str, Any], ...]) -> list[str]:
    return [f"{a[0]} ({a[1]} and {b[1]})" for a, b in zip(one, other, strict=True) if a != b]
