"""What ``mixbench report`` prints of a sweep of measurements: what each column's run read of the clock."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from analysis import table, timetext
from analysis.measured import Measured, Named, measured
from analysis.render import MINI, WIDTH, aligned
from analysis.timetable import Claims, claim_of
from mixbench import catalog
from mixbench.files import DamagedError
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
        ValueError: as CSV, where nothing was measured; or a result was made with other defaults than the code has now.
        mixbench.files.DamagedError: a file of a measurement is damaged; names it.
    """
    columns, claims = _columns(sweep), table.claims(sweep, store)
    found = [one for run, column in columns.items() if (one := _measured(run, column, store)) is not None]
    if form == "csv" and not found:
        raise ValueError(f"nothing of {sweep.name} was measured yet; do: {command}")
    if form == "csv":
        return timetext.csv(found, claims)
    blocks = [
        textwrap.fill(f"{MINI if sweep.mini else ''}{sweep.table.caption or sweep.name}", WIDTH),
        timetext.markdown(found, claims).rstrip() if found else _claimed(columns, claims),
        *(textwrap.fill(note, WIDTH) for note in (*_outdated(found, store), *_published(columns, claims))),
        sweep.table.note,
        _missing([run for run in columns if run not in {one.run for one in found}], command),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def on_a_machine(sweep: Sweep, store: Store, *, is_named: bool) -> Sweep:
    """The sweep as it was measured on its machine, or if only another one has measured any of it, there.

    Args:
        sweep: of measurements.
        store: where they are.
        is_named: whether the user asks for this machine.

    Raises:
        ValueError: several others have, and this one has not: two machines are no comparison of methods. Or it is
            named, and others have.
    """
    runs = [run for cell in sweep.cells for run in cell.runs]
    if any(store.times(run) is not None for run in runs):
        return sweep
    there = sorted({run.machine for run in store.known() if run.task == "time" and _is_of(run, runs, store)})
    if there and is_named:
        raise ValueError(f"--machine {runs[0].machine}: it has no times of {sweep.name}; there are: {'; '.join(there)}")
    if len(there) > 1:
        raise ValueError(f"there are times of {'; '.join(there)}, none of '{runs[0].machine}'; choose with --machine")
    return sweep.on(there[0]) if there else sweep


def _is_of(run: Run, runs: Sequence[Run], store: Store) -> bool:
    """Whether a measurement is one of these but for its machine, and done or damaged."""
    if replace(run, machine=runs[0].machine) not in runs:
        return False
    try:
        return store.times(run) is not None
    except DamagedError:  # which is told when its times are read
        return True


@dataclass(frozen=True)
class _Column:
    """How a table calls a measurement, and its rows."""

    label: str
    rows: list[Named]


def _columns(sweep: Sweep) -> dict[Run, _Column]:
    found: dict[Run, _Column] = {}
    for cell in sweep.cells:
        for run in cell.runs:
            seed = f", seed {run.seed}" if len(cell.runs) > 1 else ""
            column = found.setdefault(run, _Column(sweep.labels[cell.column] + seed, []))
            column.rows.append(Named(cell.row, sweep.labels[cell.row]))
    return found


def _measured(run: Run, column: _Column, store: Store) -> Measured | None:
    store.result(run)  # refuses one whose defaults are not today's
    return measured(run, store, rows=column.rows, label=column.label)


def _outdated(found: Sequence[Measured], store: Store) -> Iterator[str]:
    """Measurements of code that has changed since."""
    for one in found:
        result = store.recorded(one.run)
        if result is not None and result.code != catalog.code_of(one.run):
            yield (
                f"{one.label} was measured with another version of the code of its methods than today's; to measure it "
                f"again, delete {store.folder(one.run)}"
            )


def _published(columns: Mapping[Run, _Column], claims: Claims) -> Iterator[str]:
    """Where the paper's numbers are from; or that they are not at hand."""
    if claims is None:
        yield "The paper's numbers are not at hand: there is no paper.csv."
    each = (claim_of(named.name, run, claims) for run, column in columns.items() for named in column.rows)
    for source, note in dict.fromkeys((claim.source, claim.note) for claim in each if claim is not None):
        yield f"paper: {source}; {note}"


def _claimed(columns: Mapping[Run, _Column], claims: Claims) -> str:
    """The paper's ratios alone."""
    texts = {
        (named.label, run): f"{claim.value:.2f}"
        for run, column in columns.items()
        for named in column.rows
        if (claim := claim_of(named.name, run, claims)) is not None
    }
    if not texts:
        return ""
    labels = dict.fromkeys(named.label for column in columns.values() for named in column.rows)
    told = [[label, *(texts.get((label, run), "") for run in columns)] for label in labels]
    return "What the paper claims:\n\n" + aligned(["Method", *(column.label for column in columns.values())], told)


def _missing(runs: Sequence[Run], command: str) -> str:
    if not runs:
        return ""
    settings = ", ".join(run.setting for run in runs)
    return textwrap.fill(f"Not measured on {runs[0].machine}: {settings}; there, do `{command}`.", WIDTH)
