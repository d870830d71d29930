"""Statistics of times, on readings whose truth is known."""

import math
import random
from statistics import median

from analysis.ratios import ratio, times


def drifting(*, rounds, seed):
    """Two works, one three times as long, whose rounds are slower and slower, in every tenth twice."""
    draw = random.Random(seed)
    slow = [(1 + number / rounds) * (2 if number % 10 == 9 else 1) for number in range(rounds)]
    return [[base * one * draw.lognormvariate(0, 0.02) for one in slow] for base in (3.0, 1.0)]


def test_middle_is_the_median_and_quartiles_hold_half():
    found = times([5.0, 1, 2, 3, 4])
    assert (found.middle, found.quartiles, found.n) == (3, (2, 4), 5)
    assert times([1.0, 2, 9], mean=True).middle == 4


def test_one_reading_has_no_spread():
    found = times([2.0])
    assert (found.middle, found.quartiles, found.interval) == (2, (2, 2), None)


def test_times_of_calls_that_gave_nothing_have_no_quartiles_but_a_median():
    assert times([1.0, 2, math.inf]).middle == 2


def test_ratio_covers_the_truth_though_rounds_drift():
    covered = 0
    for seed in range(100):
        low, high = ratio(*drifting(rounds=40, seed=seed)).interval
        covered += low <= 3 <= high
        assert high - low < 0.4
    assert covered >= 88


def test_ratio_says_nothing_of_its_spread_for_few_rounds():
    found = ratio([2.0, 2, 2], [1.0, 1, 1])
    assert (found.value, found.interval) == (2, None)
    assert f"{found:.2f}" == "2.00"


def test_ratio_of_what_mostly_gave_nothing_is_none():
    assert ratio([math.inf] * 20, [1.0] * 20) is None


def test_a_slow_round_moves_no_ratio():
    ours, theirs = [2.0] * 30, [1.0] * 30
    ours[7] = 500.0
    found = ratio(ours, theirs)
    assert found.value == 2
    assert found.interval == (2, 2)
    assert median(ours) == 2
