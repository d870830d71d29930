"""What ``mixbench report`` prints of a sweep of measurements: what each column's run read of the clock."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from analysis import table, timetext
from analysis.measured import Named, measured
from analysis.render import WIDTH, aligned
from analysis.timetable import Claims, claim_of
from mixbench import devices
from mixbench.grid import Sweep
from mixbench.spec import Run
from mixbench.store import Store


def text(sweep: Sweep, store: Store, command: str, *, form: str) -> str:
    """The table with all that is to be known of it, or its numbers in full precision.

    Args:
        sweep: of measurements.
        store: where they are.
        command: what to type so that missing ones are made.
        form: ``md`` or ``csv``.

    Raises:
        ValueError: as CSV, where nothing was measured.
    """
    columns, claims = _columns(sweep), table.claims(sweep, store)
    found = [one for run, rows in columns.items() if (one := measured(run, store, rows)) is not None]
    if form == "csv" and not found:
        raise ValueError(f"nothing of {sweep.name} was measured yet; do: {command}")
    if form == "csv":
        return timetext.csv(found, claims)
    blocks = [
        textwrap.fill(sweep.table.caption, WIDTH),
        timetext.markdown(found, claims).rstrip() if found else _claimed(columns, claims),
        _missing([run for run in columns if run not in {one.run for one in found}], command),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


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


def _columns(sweep: Sweep) -> dict[Run, list[Named]]:
    """The measurements of a sweep, and what its table calls the rows of each."""
    found: dict[Run, list[Named]] = {}
    for cell in sweep.cells:
        for run in cell.runs:
            found.setdefault(run, []).append(Named(cell.row, sweep.labels[cell.row]))
    return found


def _claimed(columns: Mapping[Run, Sequence[Named]], claims: Claims) -> str:
    """The paper's ratios alone."""
    texts = {
        (named.label, run): f"{claim.value:.2f}"
        for run, rows in columns.items()
        for named in rows
        if (claim := claim_of(named.name, run, claims)) is not None
    }
    labels = dict.fromkeys(named.label for rows in columns.values() for named in rows)
    told = [[label, *(texts.get((label, run), "") for run in columns)] for label in labels]
    return "What the paper claims:\n\n" + aligned(["Method", *(run.setting for run in columns)], told)


def _missing(runs: Sequence[Run], command: str) -> str:
    if not runs:
        return ""
    settings = ", ".join(run.setting for run in runs)
    return textwrap.fill(f"Not measured on {runs[0].machine}: {settings}; do `{command}`.", WIDTH)
