"""What ``mixbench report`` prints: of runs that train a grid, of measurements what they read of the clock."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from analysis import render, table, timetext
from analysis.measured import Measured, Named, measured
from analysis.render import WIDTH, aligned
from analysis.timetable import Claims, claim_of
from mixbench import devices
from mixbench.grid import Sweep
from mixbench.spec import Run
from mixbench.store import Store


@dataclass(frozen=True)
class Asked:
    """What is to be printed.

    Attributes:
        sweep: whose table.
        store: where its results are.
        metric: which value of a run counts, see `analysis.readings.asked`.
        command: what to type so that missing runs are made.
    """

    sweep: Sweep
    store: Store
    metric: str
    command: str

    @property
    def is_timed(self) -> bool:
        """Whether it is a sweep of measurements."""
        return self.sweep.cells[0].runs[0].task == "time"

    @property
    def claims(self) -> Claims:
        """What the paper says; None where the table asks for nothing of it, or it is not at hand."""
        return table.claims(self.sweep, self.store)


def markdown(asked: Asked) -> str:
    """The table with all that is to be known of it.

    Raises:
        ValueError: there is no such metric.
    """
    if not asked.is_timed:
        return render.markdown(table.build(asked.sweep, asked.store, asked.metric), command=asked.command)
    found = list(_measured(asked))
    blocks = [
        textwrap.fill(asked.sweep.table.caption, WIDTH),
        timetext.markdown(found, asked.claims).rstrip() if found else _claimed(asked),
        _missing(asked, found),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def csv(asked: Asked) -> str:
    """The numbers in full precision.

    Raises:
        ValueError: there is no such metric, or nothing was measured.
    """
    if not asked.is_timed:
        return render.csv(table.build(asked.sweep, asked.store, asked.metric))
    found = list(_measured(asked))
    if not found:
        raise ValueError(f"nothing of {asked.sweep.name} was measured yet; do: {asked.command}")
    return timetext.csv(found, asked.claims)


FORMS: Mapping[str, Callable[[Asked], str]] = {"md": markdown, "csv": csv}


def machine(store: Store, named: str | None) -> str:
    """Of which machine's times a table is: one alone, since two are no comparison of methods.

    Args:
        store: where measurements may be.
        named: by the user; None: this machine, or if only another one has any, that.

    Raises:
        ValueError: the named one has none, or none was named and several others have some.
    """
    there = sorted({run.machine for run in store.known() if run.task == "time" and store.recorded(run) is not None})
    if named is not None and named not in there:
        raise ValueError(f"--machine {named}: it has no times here; these have: {'; '.join(there) or 'none'}")
    here = devices.here()
    if named is not None or here in there or not there:
        return named or here
    if len(there) > 1:
        raise ValueError(f"there are times of {'; '.join(there)}, none of '{here}'; choose one with --machine")
    return there[0]


def _columns(asked: Asked) -> dict[Run, list[Named]]:
    """The measurements of a sweep, and what its table calls the rows of each."""
    found: dict[Run, list[Named]] = {}
    for cell in asked.sweep.cells:
        for run in cell.runs:
            found.setdefault(run, []).append(Named(cell.row, asked.sweep.labels[cell.row]))
    return found


def _measured(asked: Asked) -> Iterator[Measured]:
    each = (measured(run, asked.store, rows) for run, rows in _columns(asked).items())
    return (one for one in each if one is not None)


def _claimed(asked: Asked) -> str:
    """The paper's ratios alone."""
    columns, claims = _columns(asked), asked.claims
    texts = {
        (named.label, run): f"{claim.value:.2f}"
        for run, rows in columns.items()
        for named in rows
        if (claim := claim_of(named.name, run, claims)) is not None
    }
    labels = dict.fromkeys(named.label for rows in columns.values() for named in rows)
    told = [[label, *(texts.get((label, run), "") for run in columns)] for label in labels]
    return "What the paper claims:\n\n" + aligned(["Method", *(run.setting for run in columns)], told)


def _missing(asked: Asked, found: list[Measured]) -> str:
    there = {one.run for one in found}
    missing = [run for run in _columns(asked) if run not in there]
    if not missing:
        return ""
    settings = ", ".join(run.setting for run in missing)
    return textwrap.fill(f"Not measured on {missing[0].machine}: {settings}; do `{asked.command}`.", WIDTH)
