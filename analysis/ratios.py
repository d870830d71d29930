"""Statistics of times: pure functions of readings that were taken in rounds, by turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles

import numpy as np

from mixbench.timing.rounds import median_interval

Interval = tuple[float, float]

RESAMPLES = 2000

FEWEST_ROUNDS = 10
"""Rounds below which a ratio has no interval: a percentile bootstrap of fewer is far too short."""


@dataclass(frozen=True)
class Times:
    """The times of a column.

    Attributes:
        middle: the median; or the mean, where what is timed differs from round to round on purpose.
        quartiles: the first and the third.
        interval: 95 % interval of the median; None for fewer than six readings.
        mean: of all.
        n: readings.
    """

    middle: float
    quartiles: Interval
    interval: Interval | None
    mean: float
    n: int


@dataclass(frozen=True)
class Ratio:
    """How many times another's time.

    Attributes:
        value: of the two medians.
        interval: 95 % bootstrap interval; None for fewer than `FEWEST_ROUNDS`.
    """

    value: float
    interval: Interval | None

    def __format__(self, spec: str) -> str:
        """``3.61 [3.50, 3.70]`` for the format ``.2f``."""
        if self.interval is None:
            return format(self.value, spec)
        return f"{format(self.value, spec)} [{', '.join(format(end, spec) for end in self.interval)}]"


def times(values: Sequence[float], *, mean: bool = False) -> Times:
    """What ``values``, (n,) with n of at least 1, come to; their middle is the mean where that is asked for."""
    whole = all(map(math.isfinite, values))
    quarters = quantiles(values, n=4, method="inclusive") if whole and len(values) > 1 else [median(values)] * 3
    average = fmean(values)
    middle = average if mean else median(values)
    return Times(middle, (quarters[0], quarters[2]), median_interval(values), average, len(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """The median of ``ours`` over that of ``theirs``, (n,) each, of the same rounds; None where one is not finite.

    Rounds are drawn again as a whole: what slowed both down in one of them is no difference.
    """
    if not all(math.isfinite(median(values)) for values in (ours, theirs)):
        return None
    value = median(ours) / median(theirs)
    if len(ours) < FEWEST_ROUNDS:
        return Ratio(value, None)
    rounds = np.random.default_rng(0).integers(len(ours), size=(RESAMPLES, len(ours)))
    drawn = np.median(np.asarray(ours)[rounds], 1) / np.median(np.asarray(theirs)[rounds], 1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Ratio(value, (float(low), float(high)))
