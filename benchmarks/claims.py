"""What is claimed of speed, as data: `Claim`, `publish`, and the one table of all of them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from machine import measured_on

from mixbench import files

PLACE = Path(__file__).resolve().parent.parent / "results" / "benchmarks"
HEAD = """# Benchmarks

What `make bench` found. A value is the median over rounds in which everything took its turn, with the least and the
largest; by process CPU time on one thread, if its page says nothing else. "times": as fast as the other.

| page | claim | measured | spread | target | |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Claim:
    """Something that is aimed at, and what was measured of it.

    Attributes:
        what: is compared with what.
        value: the median over the rounds.
        low, high: the least and the largest.
        target: what ``value`` is to reach.
        unit: of all of them: "times", "%", "ms" or "s"; "" for a plain number.
        at_most: whether less is better.
    """

    what: str
    value: float
    low: float
    high: float
    target: float
    unit: str = "times"
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the value reaches the target."""
        return self.value <= self.target if self.at_most else self.value >= self.target

    def row(self) -> str:
        """Cells of a table in Markdown: claim, measured, spread, target, met or missed."""
        value, low, high = (f"{number:.3g}" for number in (self.value, self.low, self.high))
        bound = f"at {'most' if self.at_most else 'least'} {self.target:g}"
        cells = (
            self.what,
            f"{value} {self.unit}".rstrip(),
            f"{low} to {high}",
            bound,
            "met" if self.is_met else "**missed**",
        )
        return " | ".join(cells)


def measured(what: str, each: Iterable[float], target: float, unit: str = "times", *, at_most: bool = False) -> Claim:
    """A claim of the values of several rounds."""
    values = sorted(each)
    return Claim(what, median(values), values[0], values[-1], target, unit, at_most)


def faster(what: str, ours: Sequence[float], theirs: Sequence[float], target: float) -> Claim:
    """How many times as long others take, round by round."""
    return measured(what, [other / mine for mine, other in zip(ours, theirs, strict=True)], target)


def by_turns(works: Mapping[str, Callable[[], object]], rounds: int, *, thrown_away: int = 1) -> dict[str, list[float]]:
    """CPU milliseconds of each work in every round; some rounds more come first and do not count."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for number in range(thrown_away + rounds):
        for name, work in works.items():
            begun = time.process_time()
            work()
            spent[name] += [1000 * (time.process_time() - begun)] if number >= thrown_away else []
    return spent


def options(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """What every benchmark can be told."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path, default=PLACE, help="the folder of pages and their table")
    return parser


def publish(name: str, place: Path, text: str, claims: Sequence[Claim]) -> None:
    """Print a benchmark's page, and write it with its claims to a folder, whose table of all claims is made anew.

    Args:
        name: the script's.
        place: the folder; `PLACE` is the one that is committed.
        text: the page, in Markdown.
        claims: those of the page.
    """
    lines = [text.rstrip(), "", "| claim | measured | spread | target | |", "|---|---|---|---|---|"]
    page = "\n".join([*lines, *(f"| {claim.row()} |" for claim in claims), ""])
    print(page)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.md").write_text(page)
    known = place / "claims.json"
    found = json.loads(known.read_text()) if known.exists() else {}
    found[name] = {"machine": measured_on(), "claims": [asdict(claim) for claim in claims]}
    files.write(known, json.dumps(found, indent=1).encode() + b"\n")
    (place / "README.md").write_text(table(found))


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of all claims, by the names of their pages, and where they were measured."""
    rows = [f"| [{name}]({name}.md) | {Claim(**claim).row()} |" for name in found for claim in found[name]["claims"]]
    machines: dict[str, list[str]] = {}
    for name, of in found.items():
        machines.setdefault(of["machine"], []).append(name)
    where = [f"- {', '.join(names)}: {machine}" for machine, names in machines.items()]
    return HEAD + "\n".join([*rows, "", *where, ""])
