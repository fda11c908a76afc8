"""The law of accuracy against density: planted curves are found again, and what cannot be known is not said."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_jax.analysis import families, law, reading
from sparse_jax.analysis.families import FAMILIES
from sparse_jax.analysis.levels import sparse_side, to_curve

CHANCE = 0.1135
LEVELS = np.geomspace(0.002, 0.5, 8)
some = settings(max_examples=25, deadline=None)


def theta_of(ceiling, middle, steepness, chance=CHANCE):
    return np.array([math.log((ceiling - chance) / (1 - ceiling)), math.log(middle), math.log(steepness)])


def curve_of(family, theta, densities=LEVELS, seeds=1, noise=0.0, rng=None):
    """Accuracies of a law; `noise` is one deviation for all levels, or one for each."""
    line = families.accuracy(FAMILIES[family], theta, densities, CHANCE)
    runs = line[:, None] if rng is None else line[:, None] + rng.normal(0, 1, (len(line), seeds)) * np.c_[noise]
    return {density: np.clip(level, 0, 1).tolist() for density, level in zip(densities.tolist(), runs, strict=True)}


# --- the families -----------------------------------------------------------------------------------


def test_the_laws_by_hand():
    """A = 0.9, d₀ = 0.01, h = 2, c = 0.1, at d = 0.02: (d₀/d)^h = 1/4."""
    theta = theta_of(0.9, 0.01, 2, 0.1)
    at = {name: families.accuracy(family, theta, np.array([0.02]), 0.1)[0] for name, family in FAMILIES.items()}
    expected = {"logistic": 0.1 + 0.8 / 1.25, "gompertz": 0.1 + 0.8 * math.exp(-0.25), "power": 0.1 + 0.8 * 0.75}
    assert at == pytest.approx(expected)
    quantities = {name: value(theta, 0.1) for name, value in FAMILIES["power"].quantities.items()}
    assert quantities == pytest.approx({"e∞": 0.1, "b": 0.8 * 0.01**2, "a": 2})
    assert 1 - at["power"] == pytest.approx(0.1 + 8e-5 * 0.02**-2)  # the equation as it is reported
    assert families.accuracy(FAMILIES["power"], theta, np.array([0.005]), 0.1)[0] == 0.1  # never under chance


thetas = st.tuples(st.floats(0.2, 0.99), st.floats(1e-3, 0.5), st.floats(0.3, 5)).map(lambda drawn: theta_of(*drawn))


@some
@given(st.sampled_from(list(FAMILIES)), thetas)
def test_laws_rise_from_chance_to_their_ceiling_and_have_their_slopes(name, theta):
    family, densities = FAMILIES[name], np.geomspace(1e-4, 1, 30)
    line = families.accuracy(family, theta, densities, CHANCE)
    assert (np.diff(line) >= 0).all()
    assert line[0] >= CHANCE
    assert line[-1] <= families.ceiling(theta, CHANCE)
    jacobian, step = families.jacobian(family, theta, densities, CHANCE), 1e-6
    away = np.abs(np.log(densities) - theta[1]) > 1e-4  # from the corner of the power law
    for i, shift in enumerate(step * np.eye(3)):
        up, down = (families.accuracy(family, theta + side * shift, densities, CHANCE) for side in (1, -1))
        np.testing.assert_allclose(jacobian[away, i], (up - down)[away] / (2 * step), atol=1e-6)
    shares = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(family.shape(family.inverse(shares)), shares)


# --- fitting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_curve_without_noise_is_found_exactly(family):
    theta = theta_of(0.95, 0.008, 1.2)
    found = law.fit(curve_of(family, theta), CHANCE, family)
    np.testing.assert_allclose(found.theta, theta, atol=1e-4)
    assert found.r2 == pytest.approx(1)
    assert found.deviation < 1e-6
    assert (found.peak, found.left_out, found.reason) == (None, (), None)


@pytest.mark.parametrize(
    ("family", "sloped"), [*((family, False) for family in FAMILIES), ("logistic", True), ("power", True)]
)
def test_intervals_cover_what_was_planted(family, sloped):
    """60 curves of 8 levels, 5 seeds and noise 0.01, or 0.002 on the plateaus and 0.022 on the slope."""
    rng, hits, bands, runs, inversions = np.random.default_rng(5), [], [], [], []
    wanted = np.array([0.003, 0.008, 0.03, 0.2])
    for _ in range(60):
        ceiling = rng.uniform(0.85, 0.98)
        theta = theta_of(ceiling, math.exp(rng.uniform(math.log(0.003), math.log(0.02))), rng.uniform(0.8, 2))
        line = families.accuracy(FAMILIES[family], theta, LEVELS, CHANCE)
        steep = 0.002 + 0.08 * (line - CHANCE) * (ceiling - line) / (ceiling - CHANCE) ** 2
        levels = curve_of(family, theta, LEVELS, 5, steep if sloped else 0.01, rng)
        found = law.fit(levels, CHANCE, family)
        said = reading.parameters(found, 0.95)
        planted = {name: value(theta, CHANCE) for name, value in FAMILIES[family].quantities.items()}
        hits.append([said[name].low <= value <= said[name].high for name, value in planted.items()])
        truth, band = families.accuracy(FAMILIES[family], theta, wanted, CHANCE), reading.predict(found, wanted, 0.95)
        bands.append((band.low <= truth) & (truth <= band.high))
        new = truth + 0.01 * rng.normal(size=len(wanted))
        runs.append((band.run_low <= new) & (new <= band.run_high))
        density = reading.invert(found, 0.6, 0.95).density
        place = families.log_density(FAMILIES[family], theta, 0.6, CHANCE)
        inversions.append(density.low <= math.exp(place) <= density.high)
    assert np.mean(hits, axis=0).min() >= 0.85
    assert np.mean(bands) >= 0.9
    assert np.mean(inversions) >= 0.85
    assert sloped or 0.88 <= np.mean(runs) <= 0.99


def test_intervals_are_not_everything():
    """As wide as needed, and no wider: an accuracy of noise 0.01 / √5 is known to a point or two."""
    levels = curve_of("logistic", theta_of(0.95, 0.008, 1.2), LEVELS, 5, 0.01, np.random.default_rng(0))
    said = reading.parameters(law.fit(levels, CHANCE, "logistic"), 0.95)
    assert said["A"].half_width < 0.03
    assert said["d₀"].half_width < 0.002
    assert said["h"].half_width < 0.3


def test_levels_count_by_their_runs():
    """A level that is off draws the law nearer with a hundred runs than with one."""
    levels = curve_of("logistic", theta_of(0.95, 0.008, 1.2))
    middle, misses = float(LEVELS[3]), []
    for runs in (1, 100):
        off = levels | {middle: [levels[middle][0] + 0.05] * runs}
        misses.append(off[middle][0] - reading.predict(law.fit(off, CHANCE, "logistic"), [middle], 0.9).line[0])
    assert 0 < misses[1] < 0.1 * misses[0]


def test_degrees_of_freedom_by_hand():
    """4 levels of 2 runs with squares 0.01 each: s² = 0.04 / 4, S = 0.005. The level means have variance 0.02.

    T = 0.015, so (0.005 + 0.015)² / (0.005² / 4 + 0.015² / 1) = 0.0004 / 0.00023125 = 1.7297.
    """
    levels = {density: [0.5 - 0.005**0.5, 0.5 + 0.005**0.5] for density in (0.1, 0.2, 0.3, 0.4)}
    assert law._freedom(to_curve(levels), 0.02) == pytest.approx(1.7297, abs=1e-4)
    assert law._freedom(to_curve(levels), 0.001) == pytest.approx(4)  # the law is as true as can be seen
    assert law._freedom(to_curve({density: [0.5] for density in levels}), 0.02) == 1


def test_the_covariance_by_hand():
    """J = I of three levels with one, one and two runs: W = ¾, ¾, 3/2, and cov = V = max(deviation² / w, s² / n)."""
    curve = to_curve({0.1: [0.5], 0.2: [0.5], 0.3: [0.5, 0.7]})  # s² = 0.02, of the mean 0.01
    np.testing.assert_allclose(law._covariance(curve, np.eye(3), 0.003), np.diag([0.004, 0.004, 0.01]), atol=1e-15)
    np.testing.assert_allclose(law._covariance(curve, np.eye(3), 0.03), np.diag([0.04, 0.04, 0.02]), atol=1e-15)
    assert law._covariance(curve, np.ones((3, 3)), 0.03) is None


@pytest.mark.parametrize("planted", FAMILIES)
def test_the_planted_family_is_chosen(planted):
    rng, densities = np.random.default_rng(3), np.geomspace(0.001, 0.5, 10)
    for middle in (0.004, 0.01):
        levels = curve_of(planted, theta_of(0.95, middle, 1.2), densities, 10, 0.003, rng)
        found = law.choose(levels, CHANCE)
        assert found.fit.family == planted
        assert found.reason is None
        assert found.held_out[planted].error == min(one.error for one in found.held_out.values()) < 0.01


def test_held_out_levels_are_predicted_from_the_others():
    theta = theta_of(0.95, 0.008, 1.2)
    levels = curve_of("logistic", theta)
    exact = law.held_out(levels, CHANCE, "logistic")
    assert exact.error < 1e-5
    assert list(exact.predictions) == list(exact.measured) == LEVELS.tolist()
    middle = LEVELS[4]
    spoilt = law.held_out(levels | {middle: [levels[middle][0] - 0.05]}, CHANCE, "logistic")
    assert spoilt.predictions[middle] == pytest.approx(levels[middle][0], abs=1e-5)  # which it has not seen
    misses = [abs(spoilt.predictions[density] - mean) for density, mean in spoilt.measured.items()]
    assert spoilt.error == pytest.approx(np.mean(misses))
    assert spoilt.error > 0.05 / 8


# --- peaks ------------------------------------------------------------------------------------------


def test_a_curve_is_fitted_on_the_sparse_side_of_its_peak_and_says_so():
    levels = curve_of("logistic", theta_of(0.95, 0.008, 1.2)) | {0.7: [0.9], 1.0: [0.85]}
    found = law.fit(levels, CHANCE, "logistic")
    assert (found.peak, found.left_out) == (0.5, (0.7, 1.0))
    np.testing.assert_allclose(found.curve.densities, LEVELS)
    chosen = law.choose(levels, CHANCE)
    assert chosen.fit.peak == 0.5
    assert list(chosen.held_out["logistic"].measured) == LEVELS.tolist()
    few = {density: levels[density] for density in (*LEVELS[-2:].tolist(), 0.7, 1.0)}
    assert law.choose(few, CHANCE).reason == "two levels up to the peak at density 0.5 only: no law is fitted"


def test_what_noise_explains_is_no_peak():
    """Two runs a level, 0.02 off their mean: s² = 3 · 2 · 0.02² / 3 = 0.0008, and of a difference √(2 s² / 2) = 0.0283.

    Three of these are 0.085.
    """
    levels = {0.1: [0.5 - 0.02, 0.5 + 0.02], 0.2: [0.9 - 0.02, 0.9 + 0.02], 0.4: [0.89 - 0.02, 0.89 + 0.02]}
    assert sparse_side(levels).peak is None
    assert sparse_side(levels).left_out == ()
    far = levels | {0.4: [0.81 - 0.02, 0.81 + 0.02]}
    assert (sparse_side(far).peak, sparse_side(far).left_out) == (0.2, (0.4,))
    near = levels | {0.4: [0.82 - 0.02, 0.82 + 0.02]}
    assert sparse_side(near).peak is None
    single = {0.1: [0.5], 0.2: [0.9], 0.4: [0.899]}
    assert sparse_side(single).peak == 0.2


# --- reading ----------------------------------------------------------------------------------------


@some
@given(st.sampled_from(list(FAMILIES)), st.floats(0.003, 1))
def test_inverting_a_prediction_gives_the_density_back(family, density):
    found = law.fit(CURVES[family], CHANCE, family)
    accuracy = reading.predict(found, [density], 0.9).line[0]
    inversion = reading.invert(found, accuracy, 0.9)
    if inversion.density is None:
        assert accuracy <= CHANCE  # left of the corner of the power law
    else:
        assert inversion.density.value == pytest.approx(density, rel=1e-6)
        assert inversion.density.low <= inversion.density.value <= inversion.density.high <= 1
        assert inversion.sparsity == pytest.approx([1 - x for x in np.array(inversion.density)[[0, 2, 1]]])
        assert inversion.extrapolated == (not LEVELS[0] <= inversion.density.value <= LEVELS[-1])


SETTING = theta_of(0.9, 0.008, 1.2)
CURVES = {family: curve_of(family, SETTING, LEVELS, 3, 0.003, np.random.default_rng(4)) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_bands_hold_the_line_and_a_run_strays_farther_than_the_law(family):
    found = law.fit(CURVES[family], CHANCE, family)
    band = reading.predict(found, [1e-4, *LEVELS, 1.0], 0.95)
    for low, high in ((band.low, band.high), (band.run_low, band.run_high)):
        assert (low <= band.line).all()
        assert (band.line <= high).all()
        assert (low >= 0).all()
        assert (high <= 1).all()
    assert (band.low >= CHANCE).all()
    assert (band.run_high - band.run_low >= band.high - band.low).mean() > 0.9
    assert band.extrapolated.tolist() == [True, *[False] * 8, True]
    wider = reading.predict(found, LEVELS, 0.99)
    assert (wider.high - wider.low >= (band.high - band.low)[1:-1]).all()


def test_what_a_law_never_reaches():
    found = law.fit(CURVES["logistic"], CHANCE, "logistic")
    assert "never reached: the law ends at accuracy 0.89" in reading.invert(found, 0.99, 0.9).reason
    assert reading.invert(found, CHANCE, 0.9).reason == "not above chance: every density reaches it"
    edge = reading.invert(found, reading.predict(found, [1.0], 0.9).line[0], 0.9)
    assert edge.density.value == pytest.approx(1)
    assert edge.density.high == 1
    assert edge.extrapolated
    assert edge.reason == "at a confidence of 0.9 the law may never reach it"
    assert reading.invert(found, 0.5, 0.9).reason is None
    assert not reading.invert(found, 0.5, 0.9).extrapolated


def test_no_density_is_over_one():
    """A = 0.9, d₀ = 0.2, h = 1: at density 1 the law has c + (0.9 − c) / 1.2 = 0.76892 and not 0.8."""
    found = law.fit(curve_of("logistic", theta_of(0.9, 0.2, 1)), CHANCE, "logistic")
    missed = reading.invert(found, 0.8, 0.95)
    assert missed == reading.Inversion(None, None, False, "never reached: the law ends at accuracy 0.7689 at density 1")
    assert reading.invert(found, 0.7689, 0.95).density.value == pytest.approx(1, abs=1e-3)


# --- ugly data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(4))
def test_too_few_levels(count):
    levels = dict(list(CURVES["logistic"].items())[:count])
    found = law.choose(levels, CHANCE)
    said = ("no level", "one level", "two levels", "three levels")[count]
    assert found.fit is None
    assert found.reason == f"{said} only: no law is fitted"
    fitted = law.fit(levels, CHANCE, "logistic")
    if count < 3:
        assert fitted.theta is None
        assert fitted.reason == found.reason
        assert reading.predict(fitted, [0.1], 0.9) is None
        assert reading.parameters(fitted, 0.9) == {}
        assert reading.invert(fitted, 0.5, 0.9) == reading.Inversion(None, None, False, found.reason)


def test_as_many_levels_as_parameters_leave_no_interval():
    levels = curve_of("logistic", theta_of(0.9, 0.02, 1.2), np.array([0.005, 0.02, 0.2]))
    found = law.fit(levels, CHANCE, "logistic")
    assert found.theta is not None
    assert found.covariance is None
    assert found.deviation is None
    assert found.reason == "three levels only: the law passes through them"
    assert reading.parameters(found, 0.9)["A"] == (pytest.approx(0.9, abs=1e-4), None, None)
    band = reading.predict(found, [0.02], 0.9)
    assert band.low is band.high is band.run_low is band.run_high is None
    assert band.line[0] > CHANCE
    inversion = reading.invert(found, 0.5, 0.9)
    assert inversion.density[1:] == inversion.sparsity[1:] == (None, None)


@pytest.mark.parametrize(
    ("accuracy", "reason"), [(0.1, "no level is above chance"), (0.9, "the accuracy is the same at all levels")]
)
def test_curves_without_a_slope_have_no_law(accuracy, reason):
    levels = {density: [accuracy] * 3 for density in LEVELS.tolist()}
    assert law.choose(levels, CHANCE).reason == reason
    assert law.fit(levels, CHANCE, "power").reason == reason


def test_a_fit_that_does_not_converge_is_a_value(monkeypatch):
    minimise = law.optimize.least_squares
    monkeypatch.setattr(law.optimize, "least_squares", lambda *args, **options: minimise(*args, **options, max_nfev=1))
    found = law.choose(CURVES["logistic"], CHANCE)
    assert found.fit is None
    assert found.reason == "no family could be fitted without every one of the levels"
    assert {one.error for one in found.held_out.values()} == {None}
    assert law.fit(CURVES["logistic"], CHANCE, "logistic").reason == "did not converge"


def test_a_step_has_no_intervals():
    """Where the accuracy falls between two levels, and how steeply, is not to be known."""
    levels = {density: [0.1 if density < 0.01 else 0.9] for density in LEVELS.tolist()}
    found = law.fit(levels, CHANCE, "logistic")
    said = reading.parameters(found, 0.95)
    assert said["d₀"].low is None or said["d₀"].high > 1.5 * said["d₀"].low


def test_order_missing_values_and_impossible_densities():
    levels = CURVES["logistic"]
    odd = {density: [None, *levels[density], math.nan] for density in reversed(levels)}
    odd |= {0.3: [], 0.4: [None], 0.0: [0.1]}
    first, second = law.fit(levels, CHANCE, "logistic"), law.fit(odd, CHANCE, "logistic")
    np.testing.assert_array_equal(first.theta, second.theta)
    np.testing.assert_array_equal(first.covariance, second.covariance)
    assert second.left_out == (0.0,)
    assert to_curve({1.0: [0.5], 0.5: [0.25, 0.75]}).counts.tolist() == [2, 1]


ugly = st.dictionaries(
    st.floats(1e-6, 1), st.lists(st.none() | st.just(math.nan) | st.floats(0, 1), max_size=4), max_size=6
)


@some
@given(ugly, st.sampled_from(list(FAMILIES)), st.floats(0, 0.9))
def test_ugly_data_neither_raises_nor_warns(levels, family, chance):
    found = law.fit(levels, chance, family)
    reading.parameters(found, 0.9)
    band, inversion = reading.predict(found, [1e-3, 0.1, 1], 0.9), reading.invert(found, 0.5, 0.9)
    assert (found.theta is None) == (band is None)
    assert found.theta is not None or found.reason
    if band is not None and band.low is not None:
        assert np.isfinite([band.low, band.high, band.run_low, band.run_high]).all()
    if inversion.density is not None:
        assert 0 <= inversion.density.value <= 1
    law.held_out(levels, chance, family)
