"""In what the rows of a table are unlike, though one protocol trained them: whose numbers, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from analysis.grid import Grid
from analysis.places import Leaf, leaf_of, shortest
from analysis.readings import Reading
from mixbench.spec import EMA

COST = ("images_per_sample", "forward_passes", "backward_passes")
"""What a mixer notes of the cost of a step; 1 where it does not."""


def networks(grid: Grid) -> Iterator[str]:
    """Cells whose numbers are those of another network than the one that was trained."""
    own = [name for name in grid.names if name in ("top1", "top5")]
    cells = _read(grid).items() if own else ()
    found = {leaf: {one.result.notes.get("scored", "") for one in readings} for leaf, readings in cells}
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
    found = {leaf: tuple(_mean(readings, name) for name in COST) for leaf, readings in _read(grid).items()}
    for cost in sorted({*found.values()} - {("1", "1", "1")}):
        images, forward, backward = cost
        chosen = shortest([leaf for leaf, cost_of_cell in found.items() if cost_of_cell == cost], list(found))
        learned = f"the network learns from {images} images for each one of plain training, and " * (images != "1")
        yield (
            f"{chosen}: in each step {learned}the method takes {forward} passes forward and {backward} backward, where "
            f"plain training takes one each"
        )


def unfinished(grid: Grid) -> Iterator[str]:
    """Cells some of whose mixes did not come to what they were made for."""
    cells = _read(grid)
    for leaf, readings in cells.items():
        shares = [float(one.result.notes["finished"]) for one in readings if "finished" in one.result.notes]
        if shares:
            became = {"drop": "had no weight in the loss", "keep": "were kept", "plain": "were replaced by the image"}
            how = readings[0].result.options.get("unfinished", "keep")
            yield (
                f"{shortest([leaf], list(cells))}: {100 * fmean(shares):.0f} % of its mixes finished; the others "
                f"{became[str(how)]}"
            )


def _read(grid: Grid) -> dict[Leaf, Sequence[Reading]]:
    """What is known of each cell of which anything is, by its row and column."""
    return {leaf_of(grid, entry, "")[:2]: entry.readings for entry in grid.entries.values() if entry.readings}


def _mean(readings: Sequence[Reading], name: str) -> str:
    """Of those that note it."""
    noted = [float(one.result.notes[name]) for one in readings if name in one.result.notes]
    return f"{fmean(noted or [1.0]):.3g}"
