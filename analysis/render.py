"""A grid as text: Markdown that is also readable in a terminal, and CSV for machines."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from csv import DictWriter
from typing import Any

from analysis.footnotes import DASH, footnotes, mark
from analysis.grid import Entry, Grid
from analysis.readings import COUNTED, METRIC

WIDTH = 110
"""Columns of text; tables are as wide as they are."""


MINI = "MINI, a trial of another experiment than this: small networks, few steps. "
"""What stands before the caption of a trial's table."""


class _Dash:
    """Stands where there is no number, in any format."""

    def __format__(self, spec: str) -> str:
        return DASH


def markdown(grid: Grid, command: str) -> str:
    """The table with caption, differences and footnotes; its columns are aligned.

    Args:
        grid: the table.
        command: what to type so that the missing runs are made.
    """
    notes = "\n".join(textwrap.fill(note, WIDTH, **BULLET) for note in footnotes(grid))
    blocks = [
        _caption(grid),
        aligned(_head(grid), [_row(grid, row) for row in grid.sweep.rows]),
        *_differences(grid),
        notes,
        grid.sweep.table.note,
        _missing(grid, command),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def csv(grid: Grid) -> str:
    """One line for each cell and metric in full precision, with the paper's number and the paired difference."""
    text = io.StringIO()
    records = grid.records()
    writer = DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


BULLET: Mapping[str, Any] = {
    "initial_indent": "- ",
    "subsequent_indent": "  ",
    "break_long_words": False,
    "break_on_hyphens": False,
}


def _caption(grid: Grid) -> str:
    runs = sorted({len(entry.cell.runs) for entry in grid.entries.values()})
    seeds = " to ".join(str(many) for many in dict.fromkeys((runs[0], runs[-1])))
    spread = "one seed each" if runs == [1] else f"mean ± sample standard deviation over {seeds} seeds"
    caption = grid.sweep.table.caption or grid.sweep.name
    if grid.sweep.mini:
        caption = MINI + caption
    return f"{caption}\n{textwrap.fill(f'{COUNTED[grid.metric].capitalize()}; {spread}.', WIDTH)}"


def _head(grid: Grid) -> list[str]:
    head = ["Method"]
    for column in grid.columns:
        head.append(grid.label(column) + mark(grid, column))
        head += ["paper"] * _has_claims(grid, column)
    return head


def _row(grid: Grid, row: str) -> list[str]:
    texts = [grid.label(row)]
    for column in grid.columns:
        entry = grid.entries.get((row, column))
        texts.append(_ours(grid, entry) if entry else "")
        texts += [_theirs(grid, entry) if entry else ""] * _has_claims(grid, column)
    return texts


def _ours(grid: Grid, entry: Entry) -> str:
    if not entry.readings:
        return DASH
    count = "" if entry.complete else f" ({len(entry.readings)}/{len(entry.cell.runs)})"
    return _filled(grid, entry.estimates) + count


def _theirs(grid: Grid, entry: Entry) -> str:
    if not entry.claims:
        return ""
    words = [entry.verdicts[name].word for name in grid.names if name in entry.verdicts]
    said = " / ".join(dict.fromkeys(words) if len(set(words)) == 1 else words)
    return _filled(grid, entry.claims) + (f" ({said})" if said else "")


def _differences(grid: Grid) -> list[str]:
    """The second table, and what stands above it; nothing where no two runs share a seed."""
    if not any(grid.differences.values()):
        return []
    reference = grid.label(grid.sweep.table.compare)
    unit = " in percentage points" if all(METRIC.fullmatch(name) for name in grid.names) else ""
    above = (
        f"Difference to {reference}{unit}, seed by seed: mean [95 % t-interval], not adjusted for the "
        "number of comparisons; r is the correlation of the two rows over the seeds."
    )
    head = ["Method"] + ["Metric"] * (len(grid.names) > 1)
    for column in grid.columns:
        head += [grid.label(column) + mark(grid, column), "r"]
    rows = [_differing(grid, row, name) for row in grid.sweep.rows for name in grid.names if _compares(grid, row)]
    return [textwrap.fill(above, WIDTH), aligned(head, rows)]


def _differing(grid: Grid, row: str, name: str) -> list[str]:
    texts = [grid.label(row)] + [name] * (len(grid.names) > 1)
    for column in grid.columns:
        entry = grid.entries.get((row, column))
        paired = grid.differences.get((row, column), {}).get(name)
        if entry is None or paired is None:
            texts += ["" if entry is None else DASH, ""]
            continue
        count = "" if paired.n == len(entry.cell.runs) else f" ({paired.n}/{len(entry.cell.runs)})"
        texts.append(format(paired, grid.formats[name]) + count)
        texts.append("" if paired.correlation is None else f"{paired.correlation:+.2f}")
    return texts


def _missing(grid: Grid, command: str) -> str:
    missing = len(grid.gathered.unfinished)
    if not missing:
        return ""
    failed = len(grid.gathered.failed)
    again = f" --retry-failed` ({failed} failed: see `mixbench why`)" if failed else "`"
    runs = f"run{'s' if grid.gathered.asked != 1 else ''} {'is' if missing == 1 else 'are'}"
    return f"{missing} of {grid.gathered.asked} {runs} missing: `{command}{again}"


def _filled(grid: Grid, numbers: Mapping[str, Any]) -> str:
    """The table's cell with these numbers in it, each of which knows how to print itself."""
    return grid.sweep.table.cell.format_map({name: numbers.get(name, _Dash()) for name in grid.names})


def _has_claims(grid: Grid, column: str) -> bool:
    return any(entry.claims for entry in grid.entries.values() if entry.cell.column == column)


def _compares(grid: Grid, row: str) -> bool:
    return any((row, column) in grid.differences for column in grid.columns)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns are as wide in every line."""
    texts = [[text.replace("|", "\\|") for text in line] for line in (head, *rows)]
    widths = [max(3, *(len(text) for text in column)) for column in zip(*texts, strict=True)]
    lines = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in texts]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)
