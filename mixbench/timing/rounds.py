"""The stopwatch: many works timed by turns, in rounds of random order, until their medians are known. Without torch."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

LEVEL = 0.95

WARMING_SHARE = 0.2
"""Of the time that there is, at most."""


class Clock(Protocol):
    """Times one call."""

    @property
    def names(self) -> Sequence[str]:
        """Of its readings; the first is the one that tables show."""
        ...

    def __call__(self, work: Callable[[], object]) -> Mapping[str, float]:
        """Seconds that the work takes until all of it is done, by name."""
        ...


class HostClock:
    """Times what the CPU does: the CPU time of the process and the time that passes.

    With one thread the former leads: neighbours on the machine disturb it least.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        wall: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.names = ("cpu", "wall") if threads == 1 else ("wall", "cpu")
        self._wall, self._cpu = wall, cpu

    def __call__(self, work: Callable[[], object]) -> Mapping[str, float]:
        """Seconds that the work takes, by name."""
        wall, cpu = self._wall(), self._cpu()
        work()
        return {"cpu": self._cpu() - cpu, "wall": self._wall() - wall}


@dataclass(frozen=True)
class Work:
    """What is timed.

    Attributes:
        prepare: sets the stage for the round of that number and gives what is timed; itself it is not.
        images: how many the last call produced; asked after it, and not timed.
    """

    prepare: Callable[[int], Callable[[], object]]
    images: Callable[[], float]


@dataclass(frozen=True)
class Reading:
    """What one call took and gave.

    Attributes:
        seconds: by the clock's names.
        images: produced.
    """

    seconds: Mapping[str, float]
    images: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many rounds there are.

    Attributes:
        warm_up: thrown away.
        fewest, most: counted. Between the two they end once every median is known.
        width: of the 95 % interval of a median that counts as known, as a share of it.
        seconds: after which no round is begun, but for a first one; the warm-up ends after a part of them.
    """

    warm_up: int = 20
    fewest: int = 30
    most: int = 200
    width: float = 0.02
    seconds: float = math.inf


def rounds(
    works: Mapping[K, Work],
    clock: Clock,
    limits: Limits,
    found: Mapping[K, list[Reading]],
    *,
    seed: int,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Rounds, until there are enough; yields behind each that is counted, its readings are in ``found`` then.

    Every round times every work once, in an order of its own: what drifts, clocks and neighbours, meets them all.

    Args:
        works: by name.
        clock: times each call.
        limits: when to end.
        found: the readings of each work, one a round; those that are there already count.
        seed: of the orders.
        now: seconds, to end in time.
    """
    order, turns, begun = list(works), random.Random(seed), now()
    number = counted = min(map(len, found.values()))

    def timed() -> Mapping[K, Reading]:
        turns.shuffle(order)
        return {name: _timed(works[name], number, clock) for name in order}

    while number - counted < limits.warm_up and now() - begun < WARMING_SHARE * limits.seconds:
        timed()
        number += 1
    first = number
    while counted < limits.most and not (number > first and _over(found, clock, limits, now() - begun)):
        for name, reading in timed().items():
            found[name].append(reading)
        number += 1
        counted += 1
        yield


def _over(found: Mapping[K, Sequence[Reading]], clock: Clock, limits: Limits, seconds: float) -> bool:
    """Whether there are rounds enough: the time is up, or every median is known."""
    counted = min(map(len, found.values()))
    return seconds >= limits.seconds or (counted >= limits.fewest and _known(found, clock, limits))


def _timed(work: Work, number: int, clock: Clock) -> Reading:
    seconds = clock(work.prepare(number))
    return Reading(seconds, work.images())


def _known(found: Mapping[K, Sequence[Reading]], clock: Clock, limits: Limits) -> bool:
    each = ([reading.seconds[clock.names[0]] for reading in readings] for readings in found.values())
    return all(_narrow(seconds, limits.width) for seconds in each)


def _narrow(seconds: Sequence[float], width: float) -> bool:
    interval = median_interval(seconds)
    return interval is not None and interval[1] - interval[0] <= width * median(seconds)


def median_interval(values: Sequence[float], *, level: float = LEVEL) -> tuple[float, float] | None:
    """An interval that covers the median at this level or above, whatever the distribution; None for too few values.

    Its ends are two of the values: how many lie below the median is binomial.
    """
    tail, below, outside = 0.0, 0, (1 - level) / 2
    while (tail := tail + math.comb(len(values), below) * 0.5 ** len(values)) <= outside:
        below += 1
    if below == 0:
        return None
    ordered = sorted(values)
    return ordered[below - 1], ordered[-below]
