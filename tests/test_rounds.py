"""The stopwatch of `mixbench time`, by a clock that stands still unless a work moves it."""

import math
import random
from statistics import median

import pytest
from invented import measure

from mixbench.timing.rounds import HostClock, Limits, Work, median_interval, rounds


class Watch:
    """Time that passes only when somebody lets it."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def takes(self, seconds, images=1.0):
        """A work that lasts as long; of a sequence, each call as long as its turn says."""
        each = iter(seconds) if isinstance(seconds, list) else None

        def call():
            self.seconds += next(each) if each else seconds

        return Work(lambda number: call, lambda: images)


@pytest.fixture
def watch():
    return Watch()


def timed(watch, works, **limits):
    clock = HostClock(wall=watch, cpu=watch)
    found = measure(works, clock, Limits(**limits), seed=0, now=watch)
    return {name: [reading.seconds["cpu"] for reading in readings] for name, readings in found.items()}


def test_a_work_of_known_duration_is_reported_exactly(watch):
    assert timed(watch, {"a": watch.takes(0.5), "b": watch.takes(0.25)}) == {"a": [0.5] * 30, "b": [0.25] * 30}


@pytest.mark.parametrize(("threads", "first"), [(1, "cpu"), (2, "wall")])
def test_the_time_that_passes_leads_where_several_threads_share_the_work(threads, first):
    assert HostClock(threads=threads).names[0] == first


def test_what_is_prepared_is_not_timed(watch):
    def prepare(number):
        watch.seconds += 7
        return lambda: None

    assert set(timed(watch, {"a": Work(prepare, lambda: 1)}, most=30)["a"]) == {0}


def test_one_slow_trial_does_not_move_the_median(watch):
    slow = [1.0] * 25 + [1000.0] + [1.0] * 400
    found = timed(watch, {"a": watch.takes(slow)})["a"]
    assert max(found) == 1000
    assert median(found) == 1


def test_the_warm_up_is_thrown_away(watch):
    found = timed(watch, {"a": watch.takes([9.0] * 20 + [1.0] * 400)})["a"]
    assert found == [1.0] * 30


def test_rounds_go_on_while_a_median_is_not_known(watch):
    seconds = [1 + random.Random(4).random()] + [random.Random(n).uniform(1, 2) for n in range(300)]
    assert len(timed(watch, {"a": watch.takes(0.5), "b": watch.takes(seconds)}, warm_up=0)["a"]) == 200


def test_rounds_end_when_the_time_is_over(watch):
    found = timed(watch, {"a": watch.takes(1.0)}, seconds=20.0)["a"]
    assert len(found) == 16  # four of the twenty seconds are for warming up


def test_there_is_a_counted_round_however_little_time_there_is(watch):
    assert timed(watch, {"a": watch.takes(100.0)}, seconds=1.0)["a"] == [100.0]


def test_every_work_has_a_reading_of_every_round_in_changing_order(watch):
    order = []

    def work(name):
        return Work(lambda number: lambda: order.append((number, name)), lambda: 1)

    measure({name: work(name) for name in "abc"}, HostClock(wall=watch, cpu=watch), Limits(), seed=0, now=watch)
    each = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert all({name for _, name in one} == set("abc") and len({n for n, _ in one}) == 1 for one in each)
    assert len({tuple(name for _, name in one) for one in each}) > 1


def test_readings_that_are_there_already_count(watch):
    found, clock = {"a": [], "b": []}, HostClock(wall=watch, cpu=watch)
    works = {name: watch.takes(1.0) for name in found}
    first = rounds(works, clock, Limits(), found, seed=0, now=watch)
    for _ in range(12):
        next(first)
    assert [len(readings) for readings in found.values()] == [12, 12]
    assert len(list(rounds(works, clock, Limits(), found, seed=0, now=watch))) == 18


def test_median_interval_covers_the_median_as_often_as_it_says():
    draw = random.Random(0)
    covered = 0
    for _ in range(2000):
        low, high = median_interval([draw.expovariate(1) for _ in range(30)])
        covered += low <= math.log(2) <= high
    assert 0.95 <= covered / 2000 <= 0.98


def test_too_few_values_have_no_median_interval():
    assert median_interval([1.0] * 5) is None
    assert median_interval([1.0, 2, 3, 4, 5, 6]) == (1, 6)
