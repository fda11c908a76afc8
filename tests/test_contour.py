"""The density at which accuracy crosses half of the way from chance to dense."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_jax.analysis.contour import contour, crossing

CHANCE = 0.1


def row_of(means, seeds=1):
    """Every seed has the mean itself."""
    return {density: dict.fromkeys(range(seeds), mean) for density, mean in means.items()}


def cross(row, dense=None, fan_in=None, **options):
    return crossing(row, dense or {}, fan_in or {}, CHANCE, 0.95, **options)


def test_a_crossing_by_hand():
    """Dense 0.9, so the target is 0.5: half-way from 0.4 to 0.6, at √(0.01 · 0.04) = 0.02."""
    row = row_of({0.5: 0.9, 0.04: 0.6, 0.01: 0.4, 0.001: 0.1})
    found = cross(row, {0: 0.9})
    assert found.density == (pytest.approx(0.02), None, None)
    assert (found.target, found.side, found.dense_measured, found.seeds) == (pytest.approx(0.5), None, True, 1)
    # a quarter of the way: 0.3 is 2/3 of the way from 0.1 to 0.4, at 0.001 · 10^(2/3)
    assert cross(row, {0: 0.9}, fraction=0.25).density.value == pytest.approx(0.001 * 10 ** (2 / 3))
    without = cross(row)
    assert without.density == found.density
    assert not without.dense_measured
    # dense 0.7: the target is 0.4, which is measured
    assert cross(row, {0: 0.7}).density.value == pytest.approx(0.01)


def test_what_falls_with_density_is_levelled_first():
    """0.5, 0.3 become 0.4, 0.4; the target 0.5 is a quarter of the way to 0.8."""
    row = row_of({0.001: 0.1, 0.01: 0.5, 0.1: 0.3, 1.0: 0.8})
    found = cross(row, {0: 0.9})
    assert found.density.value == pytest.approx(0.1 * 10**0.25)
    # the target 0.3 is 2/3 of the way from 0.1 to 0.4
    assert cross(row, {0: 0.5}).density.value == pytest.approx(0.001 * 10 ** (2 / 3))


def test_levels_beyond_the_peak_do_not_count():
    row = row_of({0.001: 0.1, 0.1: 0.9, 1.0: 0.3})
    assert cross(row, {0: 0.9}).density.value == pytest.approx(0.01)  # half-way from 0.1 to 0.9


@pytest.mark.parametrize(
    ("means", "side"),
    [
        ({0.001: 0.6, 0.5: 0.9}, "below 0.001"),
        ({0.001: 0.1, 0.5: 0.4}, "above 0.5"),
        ({0.001: 0.1, 0.1: 0.4, 0.5: 0.3}, "not reached up to 0.5"),
    ],
)
def test_a_crossing_that_was_not_measured_is_on_a_side(means, side):
    found = cross(row_of(means, 6), dict.fromkeys(range(6), 0.9), {0.1: 10})
    assert found.density is found.fan_in is None
    assert found.side == side
    assert found.target == pytest.approx(0.5)


def test_nothing_to_cross():
    assert cross({}).density is cross({}).side is cross({}).target is None
    assert cross({0.1: {0: None}, 0.2: {}, 0.0: {0: 0.5}}, {0: 0.9}) == cross({}, {0: 0.9})
    collapsed = row_of({0.001: 0.1, 0.5: 0.1}, 5)
    assert cross(collapsed).side == "nothing to cross: dense is not above chance"
    assert cross(collapsed, {0: 0.9}).side == "above 0.5"


def test_fan_in_by_hand():
    """Fan-in 1, 4 and 50 at 0.01, 0.04 and 0.5; at 0.02 it is 2. Sparser than known it is in proportion."""
    row = row_of({0.5: 0.9, 0.04: 0.6, 0.01: 0.4}, 5)
    assert cross(row, fan_in={0.01: 1, 0.04: 4, 0.5: 50}).fan_in == pytest.approx((2, 2, 2))
    assert cross(row, fan_in={0.5: 50}).fan_in.value == pytest.approx(2)
    assert cross(row).fan_in is None
    assert cross(row, fan_in={0.0: 0}).fan_in is None


def noisy(rng, seeds, middle=0.02, noise=0.3):
    """A straight line over ln density whose place differs from seed to seed; it crosses 0.5 at `middle`."""
    places = math.log(middle) + noise * rng.normal(size=seeds)
    return {
        density: dict(enumerate(np.clip(0.5 + 0.1 * (math.log(density) - places), 0, 1).tolist()))
        for density in np.geomspace(0.002, 0.2, 6).tolist()
    }


def test_intervals_cover():
    rng = np.random.default_rng(0)
    found = [cross(noisy(rng, 5), {-1: 0.9}).density for _ in range(60)]
    covered = [interval.low <= 0.02 <= interval.high for interval in found]
    assert np.mean(covered) >= 0.85
    assert np.mean([interval.high / interval.low for interval in found]) < 4


def test_few_seeds_have_no_interval_and_reports_can_be_repeated():
    row = noisy(np.random.default_rng(1), 5)
    assert cross(row) == cross(row)
    assert cross(row).density.low < cross(row).density.value < cross(row).density.high
    four = {density: {seed: runs[seed] for seed in range(4)} for density, runs in row.items()}
    assert cross(four).density[1:] == (None, None)


def test_an_interval_that_leaves_the_measured_densities_ends_where_densities_do():
    row = {0.01: dict(enumerate([0.1, 0.1, 0.55, 0.6, 0.62])), 0.5: dict(enumerate([0.4, 0.45, 0.9, 0.9, 0.9]))}
    found = cross(row, dict.fromkeys(range(5), 0.9), {0.01: 1, 0.5: 50})
    assert found.density[1:] == (0, 1)
    assert found.fan_in[1:] == pytest.approx((0, 100))


def test_seeds_are_resampled_whole():
    """Seeds that all cross at one density leave no doubt of it, however far they are apart."""
    row = {
        density: {seed: 0.5 + height * step for seed, height in enumerate([0.1, 0.2, 0.3, 0.35, 0.4])}
        for density, step in ((0.001, -1), (0.1, 1))
    }
    dense = {100: 0.9}
    assert cross(row, dense).density == pytest.approx((0.01, 0.01, 0.01))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([0.001, 0.01, 0.1, 0.5, 1.0]),
        st.dictionaries(st.integers(0, 5), st.none() | st.just(math.nan) | st.integers(0, 10).map(lambda n: n / 10)),
    ),
    st.dictionaries(st.integers(0, 5), st.none() | st.floats(0, 1)),
)
def test_ugly_data_neither_raises_nor_warns(row, dense):
    found = cross(row, dense, {0.01: 3})
    if found.density is None:
        assert found.side or found.target is None
    else:
        assert found.side is None
        assert min(row) <= found.density.value <= max(row)
        assert found.density.low is None or 0 <= found.density.low <= found.density.value <= found.density.high <= 1


def test_a_contour_is_the_crossing_of_every_row():
    rows = {"relu": row_of({0.01: 0.4, 0.04: 0.6}), "tanh": row_of({0.01: 0.2, 0.04: 0.8})}
    found = contour(rows, {"relu": {0: 0.9}}, {"tanh": {0.01: 1}}, CHANCE, 0.95)
    assert list(found) == ["relu", "tanh"]
    assert found["relu"] == cross(rows["relu"], {0: 0.9})
    assert found["tanh"] == cross(rows["tanh"], fan_in={0.01: 1})
    assert contour(rows, {}, {}, CHANCE, 0.95, 0.25)["relu"] == cross(rows["relu"], fraction=0.25)
