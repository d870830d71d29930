"""Statistics of a few seeds: pure functions of plain numbers. What is too little to tell anything gives None."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation, fmean, median, stdev, variance

Interval = tuple[float, float]

FEWEST = 3
"""Runs below which there is neither interval nor verdict. Two leave one degree of freedom, at which Student's t makes
the 95 % interval nine standard deviations long to each side: it would say nothing, and look as if it did."""

MARGIN = 0.5
"""Percentage points within which a published accuracy counts as reproduced."""

ASSUMED_RUNS = 1
"""Runs behind a published number that comes without standard deviation or number of runs."""


@dataclass(frozen=True)
class Estimate:
    """Mean and spread of a cell.

    Attributes:
        mean: over the runs that there are.
        std: sample standard deviation (n - 1 in the denominator); None for a single run.
        n: runs that there are.
        of: runs that there should be.
    """

    mean: float
    std: float | None
    n: int
    of: int

    def __format__(self, spec: str) -> str:
        """``84.07 ± 0.05`` for the format ``.2f``."""
        spread = "" if self.std is None else f" ± {format(self.std, spec).strip()}"
        return format(self.mean, spec) + spread


@dataclass(frozen=True)
class Paired:
    """Difference between two rows, seed by seed.

    Attributes:
        mean: of the differences.
        interval: 95 % t-interval of that mean; None for fewer than `FEWEST` seeds.
        n: seeds that both rows have.
        correlation: Pearson's, of the two rows over these seeds; None for fewer than `FEWEST`, or without spread.
            Pairing narrows the interval where it is large, and widens it where it is near zero.
    """

    mean: float
    interval: Interval | None
    n: int
    correlation: float | None

    def __format__(self, spec: str) -> str:
        """``+1.34 [+0.80, +1.88]`` for the format ``.2f``."""
        between = "" if self.interval is None else f" [{', '.join(signed(end, spec) for end in self.interval)}]"
        return signed(self.mean, spec) + between


@dataclass(frozen=True)
class Verdict:
    """Whether a published number was reproduced.

    Attributes:
        word: ``reproduced``, ``compatible``, ``differs`` or ``not run``; "" for fewer than `FEWEST` runs of ours.
        difference: ours less the published one; None without a run of ours.
        interval: 95 % interval of that difference; None for fewer than `FEWEST` runs of ours.
    """

    word: str
    difference: float | None
    interval: Interval | None


def estimate(values: Sequence[float], of: int) -> Estimate:
    """Mean and sample standard deviation of ``values``, (n,) with n of at least 1, of ``of`` that there should be."""
    return Estimate(fmean(values), stdev(values) if len(values) > 1 else None, len(values), of)


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Interval | None:
    """Student's t-interval of the mean of ``values``, (n,); None for fewer than `FEWEST`.

    At three to ten values it holds its level; a percentile bootstrap of three covers the mean in 75 % of the cases.
    """
    if len(values) < FEWEST:
        return None
    error = math.sqrt(variance(values) / len(values))
    return _around(fmean(values), error, len(values) - 1, level)


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> Paired | None:
    """Mean of ``values`` less ``reference``, both by seed, over the seeds that both have; None if they share none."""
    seeds = [seed for seed in values if seed in reference]
    if not seeds:
        return None
    ours, theirs = [values[seed] for seed in seeds], [reference[seed] for seed in seeds]
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    return Paired(fmean(differences), t_interval(differences), len(seeds), _correlation(ours, theirs))


def median_of_last(curve: Sequence[float], k: int) -> float:
    """Median of the last ``k`` values of a curve, (epochs,), or of all where there are fewer."""
    return median(curve[-k:])


def best(curve: Sequence[Mapping[str, float]], *, by: str) -> Mapping[str, float]:
    """The entry of a curve, one for each epoch, in which ``by`` is largest; the first of several.

    On test data this selects: ten epochs that scatter by 0.2 add 0.3.
    """
    return max(curve, key=lambda entry: entry[by])


def verdict(ours: Sequence[float], value: float, std: float | None, n: int | None) -> Verdict:
    """Whether ``ours``, (runs,), reproduce a published mean ``value``, in percentage points.

    *Reproduced*: two one-sided tests at 5 % put the difference within `MARGIN`, that is, its 90 % interval lies
    within (Schuirmann, 1987). *Differs*: it is not, and the 95 % interval excludes zero. *Compatible*: neither.

    The intervals are Welch's where ``std`` and ``n`` are published; else a prediction interval: the published number
    is taken as the mean of `ASSUMED_RUNS` runs that scatter as ours do.
    """
    if not ours:
        return Verdict("not run", None, None)
    difference = fmean(ours) - value
    if len(ours) < FEWEST:
        return Verdict("", difference, None)
    error, freedom = _predicted(ours) if std is None or n is None or n < 2 else _welch(ours, std, n)
    low, high = _around(difference, error, freedom, 0.95)
    inner_low, inner_high = _around(difference, error, freedom, 0.90)
    if inner_low > -MARGIN and inner_high < MARGIN:
        word = "reproduced"
    else:
        word = "compatible" if low <= 0 <= high else "differs"
    return Verdict(word, difference, (low, high))


def signed(number: float, spec: str) -> str:
    """A difference with its sign, in the format of the numbers it was taken of."""
    return ("-" if number < 0 else "+") + format(abs(number), spec).strip()


def _welch(ours: Sequence[float], std: float, n: int) -> tuple[float, float]:
    """Standard error of the difference of two means, and Welch and Satterthwaite's degrees of freedom."""
    our_share, their_share = variance(ours) / len(ours), std**2 / n
    total = our_share + their_share
    if total == 0:
        return 0.0, math.inf
    return math.sqrt(total), total**2 / (our_share**2 / (len(ours) - 1) + their_share**2 / (n - 1))


def _predicted(ours: Sequence[float]) -> tuple[float, float]:
    """Standard error of the difference to the mean of `ASSUMED_RUNS` more such runs, and its degrees of freedom."""
    return stdev(ours) * math.sqrt(1 / len(ours) + 1 / ASSUMED_RUNS), len(ours) - 1


def _around(middle: float, error: float, freedom: float, level: float) -> Interval:
    half = _student_t((1 + level) / 2, freedom) * error
    return middle - half, middle + half


@functools.cache
def _student_t(share: float, freedom: float) -> float:
    """The quantile of Student's t below which lies ``share`` of it."""
    from scipy.special import stdtrit  # scipy.stats has the same quantile, but takes a second to import

    return float(stdtrit(freedom, share))


def _correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    if len(ours) < FEWEST:
        return None
    try:
        return correlation(ours, theirs)
    except StatisticsError:  # one of the two is constant
        return None
