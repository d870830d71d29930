"""Where in a table something holds, said as shortly as it can be."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.grid import Entry, Grid

Leaf = tuple[str, ...]
"""A part of the table, from the large to the small: row, column, then a seed or a metric."""


def shortest(chosen: Sequence[Leaf], among: Sequence[Leaf]) -> str:
    """Names the chosen leaves of a tree: a branch that is chosen whole by its name alone, one without siblings never.

    "Mixup, CutMix (CIFAR-10 (seed 3))": all of Mixup, and one seed of CutMix in one column.
    """
    names = []
    for head in dict.fromkeys(leaf[0] for leaf in chosen):
        mine, branch = ([leaf[1:] for leaf in leaves if leaf[0] == head] for leaves in (chosen, among))
        while len({leaf[:1] for leaf in branch}) == 1 and len(branch[0]) > 1:
            mine, branch = ([leaf[1:] for leaf in leaves] for leaves in (mine, branch))
        names.append(head if set(mine) == set(branch) else f"{head} ({shortest(mine, branch)})")
    return ", ".join(names)


def leaf_of(grid: Grid, entry: Entry, part: str) -> Leaf:
    """A part of a cell: its row and column as the table prints them, and the part."""
    return grid.label(entry.cell.row), grid.label(entry.cell.column), part
