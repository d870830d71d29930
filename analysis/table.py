"""From a sweep and its results to the `Grid` of a table: every number is looked up by its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from analysis import paper, stats
from analysis.grid import Column, Entry, Grid
from analysis.paper import Claim, Key
from analysis.readings import Gathered, asked, gather
from analysis.stats import Paired
from mixbench.data import DATASETS, OWN_FOLDER
from mixbench.grid import Cell, Sweep
from mixbench.spec import Run
from mixbench.store import Store


def build(sweep: Sweep, store: Store, metric: str) -> Grid:
    """The grid of a sweep's table.

    Args:
        sweep: its cells, and how its table looks.
        store: where the results are.
        metric: which value of a run counts, or a metric, see `analysis.readings.asked`.

    Raises:
        ValueError: there is no such ``metric``, or the sweep's ``table.cell`` asks for one that a result has not.
    """
    sweep, counted = asked(sweep, metric)
    shown = sweep.table.metrics()
    names = tuple(shown)
    gathered = gather(sweep, store, counted)
    published = claims(sweep, store)
    columns = {name: _column(sweep, name, gathered) for name in sweep.columns}
    entries = {
        (cell.row, cell.column): _entry(sweep, cell, columns[cell.column], gathered, names, published or {})
        for cell in sweep.cells
    }
    return Grid(
        sweep=sweep,
        metric=counted,
        formats=shown,
        columns=columns,
        entries=entries,
        differences=_differences(sweep.table.compare, entries, names),
        gathered=gathered,
        has_paper=published is not None,
    )


def claims(sweep: Sweep, store: Store) -> Mapping[Key, Claim] | None:
    """The paper's numbers: none where the table asks for none, None where they are not at hand."""
    if sweep.table.paper is None:
        return {}
    return paper.known(store.root)


def _column(sweep: Sweep, name: str, gathered: Gathered) -> Column:
    """Settle the content of a column: that of most of its results; of the first, where two are equally frequent."""
    runs = dict.fromkeys(run for cell in sweep.cells if cell.column == name for run in cell.runs)
    readings = [gathered.readings[run] for run in runs if run in gathered.readings]
    counts = Counter(reading.result.content for reading in readings)
    content = counts.most_common(1)[0][0] if counts else ""
    kept = [reading for reading in readings if reading.result.content == content]
    left_out = tuple(reading for reading in readings if reading.result.content != content)
    run = next(iter(runs))
    own = run.dataset.startswith(OWN_FOLDER)
    official = all(reading.result.official for reading in kept) if kept and not own else None
    return Column(content, official, _unlike(run, official), left_out)


def _unlike(run: Run, official: bool | None) -> str:
    """Why the paper's numbers do not compare with those of such runs; "" where they do."""
    if run.dataset.startswith(OWN_FOLDER):
        return "own pictures"
    if official is False:
        return f"not the official release of {DATASETS[run.dataset].label if run.dataset in DATASETS else run.dataset}"
    if run.train_images is not None:
        return f"trained on {run.train_images} images only"
    if run.test_images is not None:
        return f"tested on {run.test_images} images only"
    return "a trial on a small machine" if run.mini else ""


def _entry(
    sweep: Sweep, cell: Cell, column: Column, gathered: Gathered, names: tuple[str, ...], published: Mapping[Key, Claim]
) -> Entry:
    found = [gathered.readings[run] for run in cell.runs if run in gathered.readings]
    readings = tuple(reading for reading in found if reading.result.content == column.content)
    values = {name: [reading.values[name] for reading in readings] for name in names}
    claims = {} if column.unlike else _of_cell(sweep, cell, names, published)
    return Entry(
        cell=cell,
        readings=readings,
        estimates={name: stats.estimate(values[name], len(cell.runs)) for name in names if readings},
        claims=claims,
        verdicts={name: stats.verdict(values[name], claim.value, claim.std, claim.n) for name, claim in claims.items()},
    )


def _of_cell(sweep: Sweep, cell: Cell, names: tuple[str, ...], published: Mapping[Key, Claim]) -> dict[str, Claim]:
    run = cell.runs[0]
    keys = {name: Key(str(sweep.table.paper), cell.row, run.dataset, run.model, "", name) for name in names}
    return {name: published[key] for name, key in keys.items() if key in published}


def _differences(
    reference: str, entries: Mapping[tuple[str, str], Entry], names: tuple[str, ...]
) -> dict[tuple[str, str], dict[str, Paired]]:
    """Of every other row to the reference, within each column."""
    differences: dict[tuple[str, str], dict[str, Paired]] = {}
    for (row, column), entry in entries.items():
        other = entries.get((reference, column))
        if row == reference or other is None:
            continue
        pairs = {name: stats.paired(entry.by_seed(name), other.by_seed(name)) for name in names}
        differences[row, column] = {name: pair for name, pair in pairs.items() if pair is not None}
    return differences
