"""Paired differences, Holm and ranks, against arithmetic and plain NumPy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparse_jax.analysis.comparison import compare, paired, ranks
from sparse_jax.analysis.statistics import Interval

few = settings(max_examples=60, deadline=None)
accuracies = st.integers(0, 20).map(lambda correct: correct / 20)


def test_paired_by_hand():
    """Differences 1, 2, 3 over the seeds of both: mean 2, s = 1, t = 2 √3 = 3.4641, 2 (1 − F₂(3.4641)) = 0.0742."""
    found = paired({1: 11, 2: 22, 3: 33, 9: 0}, {1: 10, 2: 20, 3: 30, 7: 1, 8: 1}, 0.95)
    assert found.mean == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert found.p_value == pytest.approx(0.0742, abs=1e-4)
    assert found[2:] == (3, (9,), (7, 8))


def test_too_few_pairs_have_no_interval():
    assert paired({}, {}, 0.95) == (None, None, 0, (), ())
    assert paired({1: 0.5}, {2: 0.5}, 0.95) == (None, None, 0, (1,), (2,))
    assert paired({1: 0.5}, {1: 0.25}, 0.95) == (Interval(0.25, None, None), None, 1, (), ())


def test_missing_values_are_no_pairs():
    found = paired({1: 0.5, 2: None, 3: math.nan, 4: None}, {1: 0.25, 2: 0.5, 3: 0.5, 4: None}, 0.95)
    assert found[2:] == (1, (), (2, 3))


def test_equal_differences():
    same = {seed: 0.9 - seed / 10 for seed in range(5)}
    assert paired(same, dict(reversed(same.items())), 0.95)[:2] == ((0, 0, 0), 1)
    less = {seed: value - 0.1 for seed, value in same.items()}  # but for rounding
    found = paired(same, less, 0.95)
    assert found.mean == pytest.approx((0.1, 0.1, 0.1))
    assert found.p_value == 0


@few
@given(st.dictionaries(st.integers(0, 9), st.tuples(accuracies, accuracies), max_size=8))
def test_paired_is_antisymmetric_and_its_interval_agrees_with_its_p_value(values):
    first, second = ({seed: pair[side] for seed, pair in values.items()} for side in (0, 1))
    there, back = paired(first, second, 0.95), paired(second, first, 0.95)
    assert there.p_value == pytest.approx(back.p_value)
    if there.p_value is not None:
        assert there.mean.low == pytest.approx(-back.mean.high, abs=1e-12)
        if abs(there.p_value - 0.05) > 1e-9:
            assert (there.p_value < 0.05) == (there.mean.low > 0 or there.mean.high < 0)


def holm(p_values):
    """Step down: the i-th smallest of m counts m − i + 1 times, and never less than the one before."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def settings_of(rng, count):
    return {f"s{i}": {seed: 0.5 + 0.02 * i + 0.02 * rng.normal() for seed in range(5)} for i in range(count)}


def test_holm_over_all_pairs_and_against_a_reference():
    table = settings_of(np.random.default_rng(0), 4)
    found = compare(table, 0.95, None)
    assert [(one.first, one.second) for one in found] == list(itertools.combinations(table, 2))
    assert [one.adjusted_p for one in found] == pytest.approx(holm([one.difference.p_value for one in found]))
    found = compare(table, 0.95, "s2")
    assert [(one.first, one.second) for one in found] == [("s0", "s2"), ("s1", "s2"), ("s3", "s2")]
    assert [one.adjusted_p for one in found] == pytest.approx(holm([one.difference.p_value for one in found]))
    assert found[0].difference == paired(table["s0"], table["s2"], 0.95)


def test_comparisons_without_a_test_do_not_count():
    table = settings_of(np.random.default_rng(1), 3) | {"other": {77: 0.5}}
    found = {one.first: one for one in compare(table, 0.95, "s0")}
    assert found["other"].adjusted_p is None
    assert found["other"].difference.p_value is None
    p_values = [found[name].difference.p_value for name in ("s1", "s2")]
    assert [found[name].adjusted_p for name in ("s1", "s2")] == pytest.approx(holm(p_values))
    assert compare({"a": {1: 0.5}, "b": {2: 0.5}}, 0.95, None)[0].adjusted_p is None
    assert compare({"a": {1: 0.5}}, 0.95, None) == []


def test_critical_difference_of_demsar():
    """Demšar's example: k = 4, N = 14, α = 0.05, q = 2.569, CD = 2.569 √(4·5 / (6·14)) = 1.25."""
    rng = np.random.default_rng(0)
    table = {f"s{i}": dict(enumerate(rng.random(14))) for i in range(4)}
    assert ranks(table, 0.95).critical_difference == pytest.approx(1.25, abs=0.005)


def test_ranks_by_hand():
    """Ranks 1 2 3, 1 2.5 2.5, 2 1 3: means 4/3, 5.5/3, 8.5/3; block 3 is missing one, block 4 is not a number."""
    table = {
        "c": {0: 0.7, 1: 0.8, 2: 0.7, 3: 0.5, 4: 0.5},
        "a": {0: 0.9, 1: 0.9, 2: 0.8, 4: math.nan},
        "b": {0: 0.8, 1: 0.8, 2: 0.9, 3: 0.5, 4: 0.5},
    }
    found = ranks(table, 0.95)
    assert found.mean_ranks == pytest.approx({"a": 4 / 3, "b": 5.5 / 3, "c": 8.5 / 3})
    assert list(found.mean_ranks) == ["a", "b", "c"]
    assert (found.blocks, sorted(found.left_out)) == (3, [3, 4])
    assert found.groups == [("a", "b", "c")]  # CD = 2.343 √(12 / 18) = 1.913 > 1.5


def friedman(values):
    """χ² = (k − 1) Σ (R_j − N (k + 1) / 2)² / Σ (r_ij − (k + 1) / 2)², which is corrected for ties."""
    n, k = values.shape
    rank = np.array([[1 + sum(b > a for b in row) + (sum(b == a for b in row) - 1) / 2 for a in row] for row in values])
    spread = ((rank - (k + 1) / 2) ** 2).sum()
    statistic = (k - 1) * ((rank.sum(0) - n * (k + 1) / 2) ** 2).sum() / spread if spread else 0.0
    return rank.mean(0), stats.chi2.sf(statistic, k - 1)


tables = st.integers(3, 5).flatmap(
    lambda k: st.lists(st.lists(accuracies, min_size=k, max_size=k), min_size=2, max_size=6).map(np.array)
)


@few
@given(tables)
def test_ranks_and_friedman_from_their_definitions(values):
    found = ranks({f"s{i}": dict(enumerate(column.tolist())) for i, column in enumerate(values.T)}, 0.9)
    means, p_value = friedman(values)
    assert found.mean_ranks == pytest.approx({f"s{i}": mean for i, mean in enumerate(means)})
    assert found.p_value == pytest.approx(p_value)
    pairs, mean = set(itertools.combinations(found.mean_ranks, 2)), found.mean_ranks
    apart = {pair for pair in pairs if mean[pair[1]] - mean[pair[0]] >= found.critical_difference}
    together = {pair for group in found.groups for pair in itertools.combinations(group, 2)}
    assert together == pairs - apart
    assert not any(set(a) < set(b) for a in found.groups for b in found.groups)


def test_settings_that_differ_are_in_two_groups():
    """Ranks 1, 2, 3, 4 in all of 8 blocks: CD = 2.569 √(20 / 48) = 1.658, so those two ranks apart differ."""
    table = {name: dict.fromkeys(range(8), 1 - place / 10) for place, name in enumerate("abcd")}
    assert ranks(table, 0.95).groups == [("a", "b"), ("b", "c"), ("c", "d")]


def test_too_few_to_rank():
    table = {name: {0: 0.5, 1: 0.6} for name in "abc"}
    assert ranks(table, 0.95).p_value == 1
    assert ranks(dict(itertools.islice(table.items(), 2)), 0.95) is None
    assert ranks(table | {"c": {0: 0.5, 1: None}}, 0.95) is None
    assert ranks({}, 0.95) is None
