"""Pictures in a grid, with words around them: `Panel`, and how one is drawn and written."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mixbench import files

Array = NDArray[np.float32]

SUFFIXES = (".png", ".pdf", ".svg")
"""What a figure's file may be."""

DPI = 200
CELL, GAP, LINE, MARGIN = 0.96, 0.04, 0.11, 0.1
"""Inches. A cell is 192 dots wide, a multiple of 8, 32 and 64: all pixels of an image are equally large."""
SMALL, TEXT = 6.5, 8.0
"""Sizes of type, in points."""
LETTER = 0.064
"""Inches that a letter of `TEXT` is wide, about."""


@dataclass(frozen=True)
class Picture:
    """A cell of the grid.

    Attributes:
        pixels: (H, W, C) an image, C 1 or 3; or (H, W) a mask, 0 black. What leaves [0, 1] is clipped.
        below: printed beneath it, in lines.
        over: (H, W, C) the image that ``pixels``, a map then, are laid over as a heat map; None for other pictures.
    """

    pixels: Array
    below: str = ""
    over: Array | None = None


@dataclass(frozen=True)
class Row:
    """Pictures side by side; None leaves a cell empty."""

    label: str
    pictures: tuple[Picture | None, ...]


@dataclass(frozen=True)
class Block:
    """Rows that belong together, under a title and, where there are any, a head over each column."""

    title: str
    rows: tuple[Row, ...]
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """All that a figure shows: blocks one below the other, and paragraphs under them."""

    blocks: tuple[Block, ...]
    caption: tuple[str, ...]


def check_suffix(path: Path, *, option: str = "--out") -> None:
    """Refuse a file that no figure can be written to.

    Raises:
        ValueError: its suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{option} {path}: a figure is written as {', '.join(SUFFIXES)}; end the name with one of them"
        )


def write(panel: Panel, path: Path) -> None:
    """Draw a panel into a file, whose suffix says in which form.

    Raises:
        ValueError: an unknown suffix.
        OSError: it cannot be written.
    """
    check_suffix(path)
    save(lambda: draw(panel), path)


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Write what is drawn into a file, whose suffix says in which form.

    Raises:
        OSError: it cannot be written.
    """
    drawn = io.BytesIO()
    # A class may be called "$5": no formula.
    with mpl.rc_context({"text.parse_math": False, "svg.fonttype": "none"}):
        draw().savefig(drawn, format=path.suffix.lower().removeprefix("."), dpi=DPI)
    files.write(path, drawn.getvalue())


def draw(panel: Panel) -> Figure:
    """The figure of a panel. All of it stands in one frame, measured in inches from the upper left corner."""
    rows = [row for block in panel.blocks for row in block.rows]
    left = 2 * MARGIN + LETTER * max(len(row.label) for row in rows)
    width = left + max(len(row.pictures) for row in rows) * (CELL + GAP) + MARGIN
    letters = int((width - 2 * MARGIN) / (LETTER * SMALL / TEXT))
    caption = [line for paragraph in panel.caption for line in textwrap.wrap(paragraph, letters)]
    bottom = MARGIN + sum(_height(block) for block in panel.blocks)
    height = bottom + LINE * len(caption) + MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    top = MARGIN
    for block in panel.blocks:
        _draw_block(axes, block, left, top)
        top += _height(block)
    axes.text(MARGIN, bottom, "\n".join(caption), size=SMALL, va="top", linespacing=1.2)
    # At the end: each image that is shown narrows the view to itself.
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    axes.axis("off")
    return figure


def _height(block: Block) -> float:
    return _head_height(block) + sum(_row_height(row) for row in block.rows) + LINE


def _head_height(block: Block) -> float:
    return LINE * (2 + max((len(head.splitlines()) for head in block.heads), default=0))


def _row_height(row: Row) -> float:
    return CELL + GAP + LINE * max(len(picture.below.splitlines()) for picture in row.pictures if picture)


def _draw_block(axes: Axes, block: Block, left: float, top: float) -> None:
    axes.text(left, top + LINE, block.title, size=TEXT, weight="bold", va="center")
    top += _head_height(block)
    for column, head in enumerate(block.heads):
        axes.text(left + column * (CELL + GAP) + CELL / 2, top - GAP, head, size=SMALL, ha="center", va="bottom")
    for row in block.rows:
        axes.text(left - MARGIN, top + CELL / 2, row.label, size=TEXT, ha="right", va="center")
        for column, picture in enumerate(row.pictures):
            if picture is not None:
                _draw_picture(axes, picture, left + column * (CELL + GAP), top)
        top += _row_height(row)


def _draw_picture(axes: Axes, picture: Picture, left: float, top: float) -> None:
    # y grows downwards, so an image's first row lies at the lesser y.
    axes.imshow(colours(picture), extent=(left, left + CELL, top + CELL, top), interpolation="nearest")
    axes.add_patch(Rectangle((left, top), CELL, CELL, fill=False, linewidth=0.3, edgecolor="0.6"))
    axes.text(left + CELL / 2, top + CELL + GAP / 2, picture.below, size=SMALL, ha="center", va="top")


def colours(picture: Picture) -> Array:
    """What is seen of a picture, (H, W, 3) in [0, 1]."""
    if picture.over is not None:
        heat = mpl.colormaps["turbo"](np.clip(picture.pixels, 0, 1))[..., :3]
        return np.asarray((heat + _red_green_blue(picture.over)) / 2, np.float32)
    return _red_green_blue(picture.pixels if picture.pixels.ndim == 3 else picture.pixels[..., None])


def _red_green_blue(image: Array) -> Array:
    return np.broadcast_to(np.clip(image, 0, 1), (*image.shape[:2], 3))
