"""In what the rows of a table are unlike, though one protocol trained them: whose numbers, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.grid import Grid
from analysis.places import leaf_of, shortest
from mixbench.spec import EMA

COST = ("images_per_sample", "forward_passes", "backward_passes")
"""What a mixer notes of the cost of a step; 1 where it does not."""


def networks(grid: Grid) -> Iterator[str]:
    """Cells whose numbers are those of another network than the one that was trained."""
    own = [name for name in grid.names if name in ("top1", "top5")]
    cells = {leaf_of(grid, entry, "")[:2]: entry.readings for entry in grid.entries.values() if entry.readings and own}
    found = {leaf: {one.result.notes.get("scored", "") for one in readings} for leaf, readings in cells.items()}
    for name in sorted(set().union(*found.values()) - {""}):
        chosen = [leaf for leaf, networks in found.items() if name in networks]
        yield (
            f"{shortest(chosen, list(found))}: {' and '.join(own)} of '{name}', a network that the method keeps beside "
            f"the one in training, where other methods show that one; such an average alone can be better. To compare "
            f"averages, train with ema: 0.999, say, and report with --metric ema_top1"
        )


def averages(grid: Grid) -> Iterator[str]:
    """Numbers of moving averages."""
    names = [name for name in grid.names if name.startswith(f"{EMA}_")]
    shares = sorted({run.ema for entry in grid.entries.values() for run in entry.cell.runs} - {0.0})
    if names:
        yield (
            f"{', '.join(names)}: of a moving average of each network's weights, which after every step keeps a share "
            f"of {', '.join(f'{share:g}' for share in shares)}, and not of the network itself"
        )


def costs(grid: Grid) -> Iterator[str]:
    """Rows whose steps are dearer than those of plain training, where the method says so."""
    cells = {leaf_of(grid, entry, "")[:2]: entry.readings for entry in grid.entries.values() if entry.readings}
    found = {leaf: {tuple(one.result.notes.get(name, 1) for name in COST) for one in cells[leaf]} for leaf in cells}
    for cost in sorted(set().union(*found.values()) - {(1, 1, 1)}):
        images, forward, backward = cost
        chosen = [leaf for leaf, costs in found.items() if cost in costs]
        yield (
            f"{shortest(chosen, list(found))}: in each step the network learns from {images:g} images for each one of "
            f"plain training, and the method takes {forward:g} passes forward and {backward:g} backward instead of one "
            f"each"
        )
