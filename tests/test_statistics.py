"""Intervals and summaries over seeds, against arithmetic, definitions and simulation."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparse_jax.analysis.statistics import (
    Interval,
    Outcome,
    expanded,
    interquartile_mean,
    known,
    mean_interval,
    rate,
    summarize,
    t_interval,
)

few = settings(max_examples=60, deadline=None)
accuracies = st.integers(0, 1000).map(lambda correct: correct / 1000)


def test_t_interval_by_hand():
    """Values 1, 2, 3: mean 2, s = 1, t_{0.975, 2} = 4.3027, so ± 4.3027 / √3 = 2.4841."""
    assert t_interval([1, 2, 3], 0.95) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert t_interval([1, 2, 3], 0.95).half_width == pytest.approx(2.4841, abs=1e-4)


def test_t_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [t_interval(rng.normal(3, 2, size=4), 0.9) for _ in range(2000)]
    covered = sum(interval.low <= 3 <= interval.high for interval in found)
    assert stats.binomtest(covered, 2000, 0.9).pvalue > 1e-4


@pytest.mark.parametrize("interval", [t_interval, mean_interval, interquartile_mean])
def test_a_single_value_has_no_interval_and_equal_values_have_one_without_length(interval):
    assert interval([0.7], 0.95) == (0.7, None, None)
    assert interval([0.7], 0.95).half_width is None
    assert interval([0.1] * 30, 0.95) == (0.1, 0.1, 0.1)
    assert interval([0.1 + 0.2, 0.3] * 12, 0.95).half_width == 0  # equal but for rounding


def test_few_values_have_students_interval_and_many_a_bootstrap():
    values = np.random.default_rng(1).exponential(size=20).tolist()
    assert mean_interval(values[:19], 0.9) == t_interval(values[:19], 0.9)
    found, plain = mean_interval(values, 0.9), t_interval(values, 0.9)
    assert found.value == pytest.approx(plain.value)
    assert found.low > plain.low
    assert found.high > plain.high
    assert found == mean_interval(values, 0.9)  # the same every time


def test_the_middle_half_by_hand():
    """Of five values the quartiles cut at 1.25 and 3.75 values: (0.75·2 + 1·3 + 0.75·10) / 2.5 = 12 / 2.5 = 4.8."""
    assert interquartile_mean([0, 2, 100, 3, 10], 0.95).value == pytest.approx(4.8)
    assert interquartile_mean([3, 1], 0.95) == (2, None, None)
    assert interquartile_mean([5, 1, 3], 0.95).value == pytest.approx((1 / 12 * 6 + 3 / 3) * 2)  # w = 1/12, 1/3, 1/12


@few
@given(st.lists(accuracies, min_size=1, max_size=6))
def test_the_middle_half_is_the_trimmed_mean_of_values_that_can_be_quartered(values):
    """Four copies of each value can be cut at whole values, and have the same middle half."""
    assert interquartile_mean(values, 0.9).value == pytest.approx(stats.trim_mean(values * 4, 0.25), abs=1e-12)


@few
@given(st.lists(accuracies, min_size=1, max_size=30), st.sampled_from([mean_interval, interquartile_mean]))
def test_intervals_hold_their_value(values, interval):
    found = interval(values, 0.9)
    assert min(values) - 1e-12 <= found.value <= max(values) + 1e-12
    if found.low is None:
        assert found.high is None
        assert len(values) < 5
    else:
        assert found.low <= found.value + 1e-12
        assert found.value <= found.high + 1e-12


def test_expanded_confidence_by_hand():
    """Five values: √(5/4) t_{0.975, 4} = 1.1180 · 2.7764 = 3.1042, and 1 − 2 Φ(−3.1042) = 0.99809.

    Of resamples of five, 5 · 0.2⁴ · 0.8 + 0.2⁵ = 0.67 % have the least value as their middle mean: more than 0.1 %.
    """
    assert expanded(0.95, 5) == pytest.approx(0.99809, abs=1e-5)
    assert interquartile_mean([0.1, 0.2, 0.3, 0.4, 0.5], 0.95) == pytest.approx((0.3, 0.1, 0.5))
    ten = np.arange(10) / 10
    assert interquartile_mean(ten, 0.95).half_width > interquartile_mean(ten, 0.9).half_width


def test_interquartile_intervals_cover():
    rng = np.random.default_rng(2)
    assert interquartile_mean(rng.normal(size=4), 0.95).low is None
    for seeds in (5, 8):
        found = [interquartile_mean(rng.normal(size=seeds), 0.95) for _ in range(150)]
        assert np.mean([interval.low <= 0 <= interval.high for interval in found]) > 0.88


def test_clopper_pearson_by_hand():
    """None of 5: the upper end p has (1 − p)^5 = 0.025, p = 1 − 0.025^0.2 = 0.5218."""
    assert rate(0, 5, 0.95) == pytest.approx((0, 0, 0.5218), abs=1e-4)
    assert rate(5, 5, 0.95) == pytest.approx((1, 0.4782, 1), abs=1e-4)


@few
@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_what_two_binomial_tests_do_not_reject(case):
    count, total = case
    value, low, high = rate(count, total, 0.9)

    def at_most(p, k):
        return sum(math.comb(total, i) * p**i * (1 - p) ** (total - i) for i in range(k + 1))

    assert value == count / total
    assert at_most(high, count) == pytest.approx(0.05) if count < total else high == 1
    assert 1 - at_most(low, count - 1) == pytest.approx(0.05) if count else low == 0


def test_summary_of_runs_that_did_not_all_succeed():
    outcomes = [
        Outcome("ok", 0.9), Outcome("ok", 0.8), Outcome("collapsed", 0.1), Outcome("diverged", None),
        Outcome("failed", None),
    ]  # fmt: skip
    found = summarize(outcomes, 0.95)
    assert (found.count, found.ok, found.collapsed, found.diverged, found.failed) == (5, 2, 1, 1, 1)
    assert found.mean.value == pytest.approx(0.6)  # 1.8 / 3
    assert found.mean_ok.value == pytest.approx(0.85)
    assert found.iqm.value == pytest.approx((1 / 12 * 1.0 + 0.8 / 3) * 2)
    assert found.collapse_rate == rate(1, 4, 0.95) == found.divergence_rate  # of the finished ones
    assert found.caveat == "of 5 runs 1 collapsed, 1 diverged, 1 failed, 1 without an accuracy"


def test_summary_says_nothing_where_nothing_is_to_be_said():
    found = summarize([Outcome("ok", 0.9), Outcome("ok", 0.8)], 0.95)
    assert found.caveat is None
    assert found.mean == found.mean_ok == t_interval([0.9, 0.8], 0.95)
    assert found.divergence_rate.value == 0
    assert found.divergence_rate.high > 0.8


@pytest.mark.parametrize("outcomes", [[], [Outcome("failed", None)]])
def test_summary_of_nothing(outcomes):
    found = summarize(outcomes, 0.95)
    assert found.mean is found.mean_ok is found.iqm is found.collapse_rate is found.divergence_rate is None
    assert found.count == len(outcomes)


def test_not_a_number_is_no_accuracy():
    assert known([0.5, None, math.nan, math.inf, 1]) == [0.5, 1]
    found = summarize([Outcome("ok", math.nan), Outcome("ok", 0.5)], 0.95)
    assert found.mean == Interval(0.5, None, None)
    assert found.missing == 1
    assert found.caveat == "of 2 runs 1 without an accuracy"


def test_an_unknown_status_is_named():
    with pytest.raises(ValueError, match="crashed"):
        summarize([Outcome("crashed", 0.5)], 0.95)


def test_training_programs_do_not_load_scipy_for_it():
    program = "import sys, sparse_jax.study.summary, sparse_jax.study.rows; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
