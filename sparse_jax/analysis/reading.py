"""What a fitted law says: its parameters, the accuracy at a density, the density at an accuracy."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sparse_jax.analysis import families
from sparse_jax.analysis.families import FAMILIES, PARAMETERS
from sparse_jax.analysis.law import Fit
from sparse_jax.analysis.statistics import RESAMPLES, RESAMPLING_SEED, Interval

LAST = 1e-9  # ln d, rounding of density 1


@dataclass(frozen=True)
class Prediction:
    """The law at some densities, all float[k]. The bands are None where the fit has no covariance.

    Attributes:
      line: the law.
      low, high: band of the law itself: of the mean of many runs.
      run_low, run_high: band of the accuracy of one new run.
      extrapolated: bool[k], outside the densities that were fitted.
    """

    densities: np.ndarray
    line: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    run_low: np.ndarray | None
    run_high: np.ndarray | None
    extrapolated: np.ndarray


@dataclass(frozen=True)
class Inversion:
    """The density and the sparsity at which a law reaches an accuracy.

    Attributes:
      density: None if it never does, and `reason` says why. An end of 0 or 1 is where densities end.
      sparsity: 1 − density.
      extrapolated: whether the density is outside those that were fitted.
      reason: why there is no density, or what its interval leaves open. None if nothing is to be said.
    """

    density: Interval | None
    sparsity: Interval | None
    extrapolated: bool
    reason: str | None


def parameters(fit: Fit, confidence: float) -> dict[str, Interval]:
    """The parameters in the equation of the family, by name; empty if there is no fit."""
    if fit.theta is None:
        return {}
    draws, found = _draws(fit), {}
    for name, quantity in FAMILIES[fit.family].quantities.items():
        value = quantity(fit.theta, fit.chance)
        ends = (None, None) if draws is None else _band(value, quantity(draws, fit.chance), confidence)
        found[name] = Interval(float(value), *(None if end is None else float(end) for end in ends))
    return found


def predict(fit: Fit, densities: np.ndarray, confidence: float) -> Prediction | None:
    """The law, its band, and the band of a new run, at each density separately; None if there is no fit.

    The run's band adds Student's t noise of `run_deviation`, the same at all densities, and no accuracy leaves [0, 1].
    """
    if fit.theta is None:
        return None
    densities, law = np.asarray(densities, float), FAMILIES[fit.family]
    line = families.accuracy(law, fit.theta, densities, fit.chance)
    outside = (densities < fit.curve.densities[0]) | (densities > fit.curve.densities[-1])
    draws = _draws(fit)
    if draws is None:
        return Prediction(densities, line, None, None, None, None, outside)
    lines = families.accuracy(law, draws, densities, fit.chance)
    spare = fit.curve.counts.sum() - PARAMETERS
    noise = np.random.default_rng(RESAMPLING_SEED + 1).standard_t(spare, len(draws))
    runs = np.clip(lines + fit.run_deviation * noise[:, None], 0, 1)
    return Prediction(densities, line, *_band(line, lines, confidence), *_band(line, runs, confidence), outside)


def invert(fit: Fit, accuracy: float, confidence: float) -> Inversion:
    """The least density at which the law has an accuracy above chance."""
    if fit.theta is None:
        return Inversion(None, None, False, fit.reason)
    if accuracy <= fit.chance:
        return Inversion(None, None, False, "not above chance: every density reaches it")
    law = FAMILIES[fit.family]
    place = families.log_density(law, fit.theta, accuracy, fit.chance)
    if place > LAST:
        most = families.accuracy(law, fit.theta, np.ones(1), fit.chance)[0]
        return Inversion(None, None, False, f"never reached: the law ends at accuracy {most:.4g} at density 1")
    draws, value, ends, reason = _draws(fit), np.exp(min(place, 0.0)), (None, None), fit.reason
    if draws is not None:
        places = families.log_density(law, draws, accuracy, fit.chance)
        low, high = _band(value, np.exp(np.minimum(places, 0)), confidence)
        ends = (float(low), float(high))
        if np.mean(places > 0) > (1 - confidence) / 2:
            reason = f"at a confidence of {confidence:g} the law may never reach it"
    density = Interval(float(value), *ends)
    sparsity = Interval(1 - density.value, *(None if end is None else 1 - end for end in reversed(ends)))
    outside = not fit.curve.densities[0] <= np.exp(place) <= fit.curve.densities[-1]
    return Inversion(density, sparsity, outside, reason)


def _draws(fit: Fit) -> np.ndarray | None:
    """float[RESAMPLES, 3]: theta from its confidence distribution, multivariate t.

    What is monotone in one parameter has the same interval as θ̂ ± t √(cov θ) sent through it; what is not, such as a
    band at a corner or a density that is not reached, needs no linearisation. The draws are the same every time.
    """
    if fit.covariance is None:
        return None
    law = stats.multivariate_t(fit.theta, fit.covariance, fit.freedom, allow_singular=True, seed=RESAMPLING_SEED)
    return np.clip(law.rvs(RESAMPLES), *families.bounds(fit.curve.densities).T)


def _band(value: np.ndarray, draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Central quantiles of draws along their first axis, which always hold the value itself."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return np.minimum(low, value), np.maximum(high, value)
