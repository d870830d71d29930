"""A table as data: `Grid`, its columns and its cells, with all that is said of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.paper import Claim
from analysis.readings import Gathered, Reading
from analysis.stats import Estimate, Paired, Verdict
from mixbench.grid import Cell, Sweep

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """The one data content that the numbers of a column come from.

    Attributes:
        content: its fingerprint; "" while nothing is finished.
        official: whether it is the official release; None for own pictures, and while nothing is finished.
        unlike: why no number of the paper may stand beside it; "" where one may.
        left_out: results on another content, which no average may include.
    """

    content: str
    official: bool | None
    unlike: str
    left_out: tuple[Reading, ...]


@dataclass(frozen=True)
class Entry:
    """A cell with its numbers.

    Attributes:
        cell: the experiment.
        readings: its results on the column's content.
        estimates: by metric; empty where there is no result.
        claims: the paper's numbers, by metric; without a metric for which it has none, or none that compares.
        verdicts: whether we reproduce them, by the same metrics.
    """

    cell: Cell
    readings: tuple[Reading, ...]
    estimates: Mapping[str, Estimate]
    claims: Mapping[str, Claim]
    verdicts: Mapping[str, Verdict]

    @property
    def complete(self) -> bool:
        """Whether all its runs are in the average."""
        return len(self.readings) == len(self.cell.runs)

    def by_seed(self, metric: str) -> dict[int, float]:
        """The value of each seed's run."""
        return {reading.run.seed: reading.values[metric] for reading in self.readings}


@dataclass(frozen=True)
class Grid:
    """A table as data.

    Attributes:
        sweep: rows, columns, labels and layout.
        metric: which value of a run counts, a key of `analysis.readings.COUNTED`.
        formats: of the metrics that a cell shows, ``{"top1": ".2f"}``.
        columns: by name.
        entries: by row and column; a pair is absent where the sweep has no such cell.
        differences: to the row that the table compares with, by row and column, then metric.
        gathered: what was read.
        has_paper: whether the paper's numbers are at hand.
    """

    sweep: Sweep
    metric: str
    formats: Mapping[str, str]
    columns: Mapping[str, Column]
    entries: Mapping[tuple[str, str], Entry]
    differences: Mapping[tuple[str, str], Mapping[str, Paired]]
    gathered: Gathered
    has_paper: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that a cell shows."""
        return tuple(self.formats)

    def label(self, name: str) -> str:
        """How the table prints a row or column."""
        return self.sweep.labels.get(name, name)

    def records(self) -> list[dict[str, Any]]:
        """One for each cell and metric, all of the same keys; None where there is no number."""
        return [self._record(entry, metric) for entry in self.entries.values() for metric in self.names]

    def frame(self) -> pd.DataFrame:
        """`records` as a tidy data frame, for figures and notebooks."""
        import pandas as pd  # takes half a second, which a printed table need not wait for

        return pd.DataFrame(self.records())

    def _record(self, entry: Entry, metric: str) -> dict[str, Any]:
        row, column = entry.cell.row, entry.cell.column
        ours = entry.estimates.get(metric)
        seeds = {reading.run.seed for reading in entry.readings}
        return {
            "row": row,
            "column": column,
            "mini": self.sweep.mini,
            "metric": metric,
            "counted": self.metric,
            "mean": ours.mean if ours else None,
            "std": ours.std if ours else None,
            "n": len(entry.readings),
            "of": len(entry.cell.runs),
            "missing_seeds": " ".join(str(run.seed) for run in entry.cell.runs if run.seed not in seeds),
            "content": self.columns[column].content,
            "official": self.columns[column].official,
            "commits": ", ".join(sorted({reading.result.commit for reading in entry.readings})),
            **_published(entry.claims.get(metric), entry.verdicts.get(metric)),
            **_compared(self.sweep.table.compare, self.differences.get((row, column), {}).get(metric)),
        }


def _published(claim: Claim | None, verdict: Verdict | None) -> dict[str, Any]:
    low, high = (verdict.interval if verdict else None) or (None, None)
    return {
        "paper": claim.value if claim else None,
        "paper_std": claim.std if claim else None,
        "paper_n": claim.n if claim else None,
        "paper_source": claim.source if claim else None,
        "paper_note": claim.note if claim else None,
        "paper_difference": verdict.difference if verdict else None,
        "paper_difference_low": low,
        "paper_difference_high": high,
        "verdict": verdict.word if verdict else None,
    }


def _compared(reference: str, paired: Paired | None) -> dict[str, Any]:
    low, high = (paired.interval if paired else None) or (None, None)
    return {
        "compared_to": reference if paired else None,
        "difference": paired.mean if paired else None,
        "difference_low": low,
        "difference_high": high,
        "difference_n": paired.n if paired else None,
        "correlation": paired.correlation if paired else None,
    }
