"""What the paper reports: its numbers by table, row, data set, model and metric, read from ``paper.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

FIELDS = ("table", "method", "dataset", "model", "column", "metric", "value", "std", "n", "source", "note")


class Key(NamedTuple):
    """Where a number stands in the paper.

    Attributes:
        table: its number.
        method: the row, by the name that it has in our sweeps.
        dataset, model: the setting; "" where the paper names none.
        column: "" but in table 11, which gives two papers' numbers of one setting.
        metric: ``top1``, ``top5``, ``map`` ...
    """

    table: str
    method: str
    dataset: str
    model: str
    column: str
    metric: str


@dataclass(frozen=True)
class Claim:
    """One number of the paper.

    Attributes:
        value: in percent, where it is an accuracy.
        std: sample standard deviation; None where the paper gives none.
        n: runs behind it; None where the paper does not say.
        source: whose number it is: the paper's own, or quoted.
        note: how to read it, and what contradicts it; facts are set apart by "; ".
    """

    value: float
    std: float | None
    n: int | None
    source: str
    note: str

    def __format__(self, spec: str) -> str:
        """``84.07 ± 0.05`` for the format ``.2f``; never with fewer digits than the paper prints."""
        return _unrounded(self.value, spec) + ("" if self.std is None else f" ± {_unrounded(self.std, spec)}")


CHECKOUT = Path(__file__).resolve().parent.parent / "results"
"""Where ``paper.csv`` lies in a checkout; a results folder elsewhere may hold its own."""


def places(results: Path) -> tuple[Path, Path]:
    """Where the paper's numbers are looked for, a results folder's own first."""
    return results / "paper.csv", CHECKOUT / "paper.csv"


def known(results: Path) -> Mapping[Key, Claim] | None:
    """All numbers of the paper, as `load` has them; None where they are not at hand."""
    own, checkout = places(results)
    found = load(own)
    return load(checkout) if found is None else found


def load(path: Path) -> Mapping[Key, Claim] | None:
    """All numbers of ``paper.csv``; None where there is no such file.

    Raises:
        ValueError: a line is not as it must be; the message names it and says what is wrong.
    """
    try:
        file = path.open(newline="", encoding="utf-8")
    except FileNotFoundError:
        return None
    claims: dict[Key, Claim] = {}
    with file:
        lines = csv.reader(file, strict=True)
        try:
            if tuple(next(lines, ())) != FIELDS:
                raise ValueError(f"its first line must be {','.join(FIELDS)}")
            for fields in lines:
                key, claim = _parse(fields)
                if key in claims:
                    raise ValueError(f"there is a number for {', '.join(filter(None, key))} already; keep one")
                claims[key] = claim
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path}, line {lines.line_num}: {error}") from None
    return claims


def _parse(fields: list[str]) -> tuple[Key, Claim]:
    if len(fields) != len(FIELDS):
        raise ValueError(f"it has {len(fields)} fields and must have {len(FIELDS)}; put text with commas in quotes")
    *place, value, std, n, source, note = fields
    claim = Claim(float(value), float(std) if std else None, int(n) if n else None, source, note)
    return Key(*place), claim


def _unrounded(number: float, spec: str) -> str:
    text = format(number, spec).strip()
    return text if float(text) == number else f"{number:g}"
