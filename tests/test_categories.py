"""Categories of sparsity levels, against arithmetic."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_jax.analysis.categories import (
    AS_GOOD,
    BEST,
    CATEGORIES,
    COLLAPSED,
    DEGRADING,
    DENSE,
    EXTREME,
    MEASURED_DENSE,
    categorize,
    collapse_line,
)
from sparse_jax.study.rows import status

MAJORITY, EXAMPLES = 0.1, 900  # √(0.1 · 0.9 / 900) = 0.01, so that 0.13 has still collapsed
MEANS = {0.5: 0.9, 0.3: 0.889, 0.2: 0.88, 0.1: 0.5, 0.05: 0.499, 0.02: 0.131, 0.01: 0.1299, 0.001: 0.05}
LEVELS = {density: [mean] for density, mean in MEANS.items()}


def named(levels, dense=(0.9,), **options):
    found = categorize(levels, dense, MAJORITY, EXAMPLES, 0.95, **options)
    return {density: level.category for density, level in found.levels.items()}


def test_the_collapse_line_by_hand():
    assert collapse_line(MAJORITY, EXAMPLES) == pytest.approx(0.13)
    assert collapse_line(0.1135, 10_000) == pytest.approx(0.1135 + 3 * 0.003172, abs=1e-5)  # MNIST


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0.01, 0.99), st.integers(1, 10_000))
def test_runs_and_levels_collapse_alike(accuracy, majority, examples):
    level = categorize({0.1: [accuracy]}, [1.0], majority, examples, 0.95).levels[0.1]
    assert (status(True, accuracy, majority, examples) == "collapsed") == (level.category == COLLAPSED)


def test_categories_by_hand():
    """Dense 0.9: as good from 0.89 on, extreme under (0.1 + 0.9) / 2 = 0.5."""
    assert named(LEVELS) == {
        0.001: COLLAPSED, 0.01: COLLAPSED, 0.02: EXTREME, 0.05: EXTREME, 0.1: DEGRADING, 0.2: DEGRADING,
        0.3: DEGRADING, 0.5: AS_GOOD,
    }  # fmt: skip
    assert list(named(LEVELS)) == sorted(LEVELS)
    assert named(LEVELS, tolerance=0.011)[0.3] == AS_GOOD
    assert named({0.5: [0.89], 0.4: [0.95]}) == {0.4: AS_GOOD, 0.5: AS_GOOD}


def test_an_interval_that_reaches_into_another_category_is_not_certain():
    """Three seeds d apart: ± 4.303 d / √3, 0.124 for 0.05 and 0.025 for 0.01; degrading is from 0.5 to under 0.89."""
    levels = {0.5: [0.87, 0.88, 0.89], 0.4: [0.5, 0.55, 0.6], 0.3: [0.69, 0.7, 0.71], 0.2: [0.7]}
    found = categorize(levels, [0.9], MAJORITY, EXAMPLES, 0.95)
    said = {density: level.certain for density, level in found.levels.items()}
    assert said == {0.5: False, 0.4: False, 0.3: True, 0.2: None}  # 0.905 is as good, 0.426 extreme
    assert found.levels[0.4].accuracy.half_width == pytest.approx(0.124, abs=1e-3)
    assert {level.category for level in found.levels.values()} == {DEGRADING}


def test_what_stands_for_dense():
    found = categorize(LEVELS | {1.0: [0.7]}, [0.8, 1.0, None, math.nan], MAJORITY, EXAMPLES, 0.95)
    assert (found.reference.value, found.reference_is, found.reference_density) == (pytest.approx(0.9), DENSE, 1)
    found = categorize(LEVELS | {1.0: [0.7]}, [None], MAJORITY, EXAMPLES, 0.95)
    assert (found.reference.value, found.reference_is, found.reference_density) == (0.7, MEASURED_DENSE, 1)
    found = categorize(LEVELS, [], MAJORITY, EXAMPLES, 0.95)
    assert (found.reference.value, found.reference_is, found.reference_density) == (0.9, BEST, 0.5)
    assert found.half_way == pytest.approx(0.5)


def test_nothing_measured_and_all_collapsed():
    found = categorize({0.5: [], 0.1: [None, math.nan]}, [], MAJORITY, EXAMPLES, 0.95)
    assert (found.reference, found.reference_is, found.half_way, found.levels) == (None, None, None, {})
    assert found.collapse_line == pytest.approx(0.13)
    assert set(named({0.5: [0.1, 0.12], 0.1: [0.1]}, dense=()).values()) == {COLLAPSED}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.2, 1))
def test_a_better_level_is_in_no_worse_category(accuracies, dense):
    levels = {place / 10 + 0.1: [accuracy] for place, accuracy in enumerate(sorted(accuracies))}
    order = [CATEGORIES.index(category) for category in named(levels, [dense]).values()]
    assert order == sorted(order, reverse=True)
