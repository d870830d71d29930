"""What a sweep file says of its table: how it looks, and which cells it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from mixbench.grid import Table
from mixbench.plain import cast_to
from mixbench.recipes import blaming, mapping
from mixbench.spec import FIELDS


def skipped(written: Any, rows: Sequence[str], columns: Sequence[str]) -> set[tuple[str, str]]:
    """Cells that are left out; a row of which nothing would be left, or a column, is refused."""
    if not isinstance(written, list) or not all(_is_cell(cell) for cell in written):
        raise ValueError(f"skip must be a list of cells, [row, setting] each, not {written!r}")
    cells = {(row, column) for row, column in written}
    for row, column in cells:
        if row not in rows or column not in columns:
            raise ValueError(
                f"skip: there is no cell [{row}, {column}]; rows: {', '.join(rows)}; columns: {', '.join(columns)}"
            )
    for name in (*rows, *columns):
        if not any(name in cell for cell in product(rows, columns) if cell not in cells):
            raise ValueError(f"skip leaves nothing of {name}; leave that out itself")
    return cells


def _is_cell(written: Any) -> bool:
    return isinstance(written, list) and [type(name) for name in written] == [str, str]


def table(written: Any, rows: Sequence[str]) -> Table:
    """How the report looks, ``table:``."""
    with blaming("table"):
        said = mapping(written)
        kinds = {"caption": str, "cell": str, "compare": str, "note": str, "paper": int | None}
        unlike = _unlike(said.pop("unlike", []))
        for key in said:
            if key not in kinds:
                raise ValueError(f"unknown key '{key}'; known keys: {', '.join(kinds)}, unlike")
        looks = Table(**{key: cast_to(kinds[key], key, value) for key, value in said.items()}, unlike=unlike)
        looks.metrics()
        if looks.compare and looks.compare not in rows:
            raise ValueError(f"compare names no row: '{looks.compare}'; rows: {', '.join(rows)}")
        return looks


def _unlike(written: Any) -> tuple[str, ...]:
    if not isinstance(written, list) or any(name not in FIELDS for name in written):
        raise ValueError(f"unlike must be a list of a recipe's keys ({', '.join(FIELDS)}), not {written!r}")
    return tuple(written)
