"""Statistics of a few seeds: by hand, and against scipy.stats."""

import math
from statistics import fmean, stdev

import pytest
from scipy import stats as oracle

from analysis import stats

OURS = [84.1, 84.0, 83.7, 84.2, 83.9]
THEIRS = [83.2, 83.6, 83.1, 83.9, 83.4]


def test_estimate_has_the_sample_standard_deviation():
    assert stats.estimate([1.0, 2.0, 3.0], 5) == stats.Estimate(2.0, 1.0, 3, 5)


def test_estimate_of_a_single_run_has_no_deviation():
    assert stats.estimate([84.0], 3) == stats.Estimate(84.0, None, 1, 3)


def test_estimate_prints_mean_and_deviation_in_the_format_of_the_table():
    assert f"{stats.estimate([84.0, 84.1, 84.2], 3):.2f}" == "84.10 ± 0.10"
    assert f"{stats.estimate([84.0], 3):.1f}" == "84.0"


def test_t_interval_is_the_one_worked_out_by_hand():
    # Mean 2, deviation 1, so an error of 1/sqrt(3); the quantile of t with 2 degrees of freedom is 4.3027.
    low, high = stats.t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_t_interval_agrees_with_scipy(level):
    expected = oracle.t.interval(level, len(OURS) - 1, fmean(OURS), stdev(OURS) / math.sqrt(len(OURS)))
    assert stats.t_interval(OURS, level=level) == pytest.approx(expected)


def test_t_interval_of_two_values_says_nothing():
    assert stats.t_interval([84.0, 84.1]) is None


def test_paired_agrees_with_scipy():
    paired = stats.paired(dict(enumerate(OURS)), dict(enumerate(THEIRS)))
    expected = oracle.ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert paired.interval == pytest.approx((expected.low, expected.high))
    assert paired.mean == pytest.approx(fmean(OURS) - fmean(THEIRS))
    assert paired.correlation == pytest.approx(oracle.pearsonr(OURS, THEIRS).statistic)


def test_paired_takes_only_the_seeds_that_both_have_and_pairs_them_by_seed():
    paired = stats.paired({0: 1.0, 1: 2.0, 2: 4.0, 9: 100.0}, {2: 1.0, 1: 1.0, 0: 1.0, 7: -100.0})
    assert (paired.mean, paired.n) == (pytest.approx(4 / 3), 3)


def test_paired_without_a_common_seed_is_nothing():
    assert stats.paired({0: 1.0}, {1: 1.0}) is None


def test_paired_over_two_seeds_has_neither_interval_nor_correlation():
    assert stats.paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 1.0}) == stats.Paired(0.5, None, 2, None)


def test_paired_with_a_constant_row_has_no_correlation():
    assert stats.paired({0: 1.0, 1: 2.0, 2: 3.0}, {0: 1.0, 1: 1.0, 2: 1.0}).correlation is None


def test_paired_prints_signs():
    assert f"{stats.Paired(-0.5, (-1.0, 0.25), 3, None):.2f}" == "-0.50 [-1.00, +0.25]"


def test_median_of_last_ignores_what_came_before():
    assert stats.median_of_last([99.0, 1.0, 3.0, 2.0, 10.0], 4) == 2.5


def test_median_of_last_of_a_short_curve_takes_all_of_it():
    assert stats.median_of_last([1.0, 2.0, 6.0], 10) == 2.0


def test_best_is_the_first_entry_with_the_largest_value():
    curve = [{"top1": 1.0, "top5": 9.0}, {"top1": 3.0, "top5": 5.0}, {"top1": 3.0, "top5": 7.0}]
    assert stats.best(curve, by="top1") == {"top1": 3.0, "top5": 5.0}


def test_verdict_uses_welch_where_deviation_and_number_are_published():
    verdict = stats.verdict(OURS, fmean(THEIRS), stdev(THEIRS), len(THEIRS))
    expected = oracle.ttest_ind(OURS, THEIRS, equal_var=False).confidence_interval(0.95)
    assert verdict.interval == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("std", "n"), [(None, None), (0.026, None), (None, 3), (0.1, 1)])
def test_verdict_without_both_takes_the_number_for_one_run_that_scatters_as_ours(std, n):
    # Mean 84, deviation 0.2, so an error of 0.2 sqrt(1/3 + 1) = 0.2309; the quantile at 2 degrees is 4.3027.
    verdict = stats.verdict([83.8, 84.0, 84.2], 83.5, std, n)
    assert verdict.difference == pytest.approx(0.5)
    assert verdict.interval == pytest.approx((0.5 - 0.99366, 0.5 + 0.99366), abs=1e-4)


@pytest.mark.parametrize("value", [83.0, 83.4, 83.5, 83.6, 83.71, 83.9, 84.2, 84.25, 84.4, 84.6, 85.0])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_verdict_is_reproduced_exactly_where_both_one_sided_tests_reject(value, spread):
    theirs = [value - spread, value, value + spread]
    below = oracle.ttest_ind(OURS, [one + stats.MARGIN for one in theirs], equal_var=False, alternative="less")
    above = oracle.ttest_ind(OURS, [one - stats.MARGIN for one in theirs], equal_var=False, alternative="greater")
    verdict = stats.verdict(OURS, value, spread, 3)
    assert (verdict.word == "reproduced") == (max(below.pvalue, above.pvalue) < 0.05)


@pytest.mark.parametrize(
    ("ours", "value", "word"),
    [
        ([84.00, 84.01, 84.02], 84.05, "reproduced"),
        ([84.00, 84.01, 84.02], 84.40, "reproduced"),  # other than zero for certain, but within the margin
        ([83.0, 84.0, 85.0], 84.05, "compatible"),
        ([84.00, 84.01, 84.02], 86.0, "differs"),
        ([84.0, 84.0, 84.0], 84.0, "reproduced"),
        ([84.0, 84.0, 84.0], 86.0, "differs"),
    ],
)
def test_verdict_has_the_word_for_the_case(ours, value, word):
    assert stats.verdict(ours, value, None, None).word == word


def test_verdict_of_two_results_without_any_scatter_is_not_a_division_by_zero():
    assert stats.verdict([84.0, 84.0, 84.0], 84.1, 0.0, 3).word == "reproduced"


def test_verdict_of_two_runs_is_withheld():
    verdict = stats.verdict([84.0, 84.2], 84.05, 0.05, 3)
    assert (verdict.word, verdict.interval) == ("", None)
    assert verdict.difference == pytest.approx(0.05)


def test_verdict_without_a_run_is_not_run():
    assert stats.verdict([], 84.05, 0.05, 3) == stats.Verdict("not run", None, None)


@pytest.mark.parametrize("share", [0.6, 0.95, 0.975, 0.995])
def test_student_t_agrees_with_scipy(share):
    for freedom in (1, 1.3, 2, 2.7, 3, 4, 7.5, 10, 33.3, 49, 200, 10_000, math.inf):
        assert stats.student_t(share, freedom) == pytest.approx(oracle.t.ppf(share, freedom), rel=1e-10)
