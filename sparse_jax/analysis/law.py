"""The law of accuracy against log density: fitted, chosen by held-out error."""

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from sparse_jax.analysis import families
from sparse_jax.analysis.families import FAMILIES, PARAMETERS
from sparse_jax.analysis.levels import Curve, Levels, sparse_side, take

LEAST_LEVELS = PARAMETERS + 1  # of a chosen law: every level is held out once, and the others must fix a law
GRID = (61, 33)  # starting points looked at: ln d₀ by ln h
STARTS = 4  # of them refined, the best of each of four ranges of steepness
SINGULAR = 1e-7  # ratio of singular values below which the levels do not determine all parameters
WORDS = ("no level", "one level", "two levels", "three levels")


@dataclass(frozen=True)
class Fit:
    """A law fitted to the sparse side of a curve.

    Attributes:
      family: name in FAMILIES.
      chance: the known accuracy of always naming the largest class.
      curve: the levels that were fitted.
      peak, left_out: see `levels.Side`.
      theta: float[3], the parameters on the whole line; None if there is no fit, and `reason` says why.
      covariance: float[3, 3] of theta; None with no more levels than parameters, and where they do not determine them.
      freedom: degrees of freedom of the covariance, for Student's t. None with no more levels than parameters.
      deviation: of the level means from the law, √(Σ w (ȳ − f)² / (k − 3)), w the level's share of the runs times k.
        None with no more levels than parameters.
      run_deviation: of the single runs from the law, √(Σ (y − f)² / (n − 3)). None together with `deviation`.
      r2: 1 − Σ w (ȳ − f)² / Σ w (ȳ − mean)²; None of a constant curve.
      reason: why there is no fit, or no covariance. None if nothing is missing.
    """

    family: str
    chance: float
    curve: Curve
    peak: float | None
    left_out: tuple[float, ...]
    theta: np.ndarray | None
    covariance: np.ndarray | None
    freedom: float | None
    deviation: float | None
    run_deviation: float | None
    r2: float | None
    reason: str | None


@dataclass(frozen=True)
class HeldOut:
    """What a family says of a level that it has not seen.

    Attributes:
      error: mean of |prediction − measured mean| over all levels; None if a prediction is missing.
      predictions: by density; None where the fit to the other levels failed. The two outermost are extrapolations.
      measured: means by density.
    """

    error: float | None
    predictions: dict[float, float | None]
    measured: dict[float, float]


@dataclass(frozen=True)
class Choice:
    """The family of least held-out error.

    Attributes:
      fit: None if no law is fitted, and `reason` says why.
      held_out: by family; empty if there are too few levels.
    """

    fit: Fit | None
    held_out: dict[str, HeldOut]
    reason: str | None


def fit(levels: Levels, chance: float, family: str) -> Fit:
    """Least squares over the runs of all levels on the sparse side of the peak.

    All runs of a level have the same density, so the law that fits the runs best is the one that fits the level
    means best, weighted by their number of runs. The noise of a level mean is taken to be its seeds' or, if that is
    larger, the deviation of all level means from the law: runs differ more where the curve is steep than on its
    plateau, and the law is only nearly true, which more seeds do not mend. For k levels of n_l runs, N in all:

        cov θ = H⁻¹ Jᵀ W V W J H⁻¹,   H = Jᵀ W J,   V_l = max(deviation² / w_l, s_l² / n_l)
        freedom = (S + T)² / (S² / (N − k) + T² / (k − 3)),   S = pooled s² k / N,   T = max(0, deviation² − S)

    which is k − 3 for single runs and N − k for a law that is true. In simulations of 4 to 8 levels and 2 to 5 seeds,
    noise equal or ten times larger on the slope, nominal 95 % intervals of the parameters of the smooth families
    covered 92 to 100 %; those of the power law, whose corner a covariance does not know, 88 to 98 % from five levels
    on and 86 to 94 % of four. Of single runs the noise is taken to be equal.

    Args:
      levels: density in (0, 1] -> accuracies; in any order, None and NaN are no runs.
      chance: in [0, 1), the share of the largest class.
      family: name in FAMILIES.
    """
    side = sparse_side(levels)
    return _fit_curve(side.curve, chance, family, side.peak, side.left_out)


def _fit_curve(
    curve: Curve, chance: float, family: str, peak: float | None, left_out: tuple[float, ...]
) -> Fit:
    """`fit` of what it is to describe."""
    head = (family, chance, curve, peak, left_out)
    k = len(curve.means)
    reason = _no_fit(curve, chance, PARAMETERS, peak)
    theta = _minimise(curve, chance, family) if reason is None else None
    if theta is None:
        return Fit(*head, None, None, None, None, None, None, reason or "did not converge")
    weights = curve.counts / curve.counts.mean()
    misses = curve.means - families.accuracy(FAMILIES[family], theta, curve.densities, chance)
    squares = float(weights @ misses**2)
    r2 = 1 - squares / float(weights @ (curve.means - np.average(curve.means, weights=weights)) ** 2)
    if k == PARAMETERS:
        return Fit(*head, theta, None, None, None, None, r2, f"{WORDS[k]} only: the law passes through them")
    of_runs = float((curve.counts @ misses**2 + curve.squares.sum()) / (curve.counts.sum() - PARAMETERS))
    variance = squares / (k - PARAMETERS)
    slopes = families.jacobian(FAMILIES[family], theta, curve.densities, chance)
    covariance = _covariance(curve, slopes, variance)
    reason = "the levels do not determine all parameters" if covariance is None else None
    return Fit(*head, theta, covariance, _freedom(curve, variance), variance**0.5, of_runs**0.5, r2, reason)


def _no_fit(curve: Curve, chance: float, least: int, peak: float | None) -> str | None:
    """Why these levels have no law; None if they may have one."""
    k, where = len(curve.means), "" if peak is None else f" up to the peak at density {peak:g}"
    if k < least:
        return f"{WORDS[k]}{where} only: no law is fitted"
    if curve.means.max() <= chance:
        return f"no level{where} is above chance"
    return f"the accuracy is the same at all levels{where}" if curve.is_constant else None


def _minimise(curve: Curve, chance: float, family: str) -> np.ndarray | None:
    """Theta of least weighted squares, from the best of several starting points; None if none converged."""
    roots, law, x = np.sqrt(curve.counts / curve.counts.mean()), FAMILIES[family], curve.densities
    found = [
        optimize.least_squares(
            lambda theta: roots * (families.accuracy(law, theta, x, chance) - curve.means),
            start,
            lambda theta: roots[:, None] * families.jacobian(law, theta, x, chance),
            bounds=families.bounds(curve.densities).T,
            xtol=1e-10,
            ftol=1e-10,
            gtol=1e-12,
        )
        for start in _starts(curve, chance, family)
    ]
    converged = [one for one in found if one.success and np.isfinite(one.cost)]
    return min(converged, key=lambda one: one.cost).x if converged else None


def _starts(curve: Curve, chance: float, family: str) -> np.ndarray:
    """float[STARTS, 3]: of a grid of ln d₀ and ln h, each with its best A, the best of each range of steepness."""
    low, high = families.bounds(curve.densities).T
    axes = [np.linspace(low[i] + 0.1, high[i] - 0.1, n) for i, n in zip((1, 2), GRID, strict=True)]
    middles, steepness = np.meshgrid(*axes, indexing="ij")
    theta = np.stack([np.zeros_like(middles), middles, steepness], axis=-1)
    shapes = FAMILIES[family].shape(families.steps(theta, curve.densities))
    weighted = curve.counts * shapes
    heights = (weighted @ (curve.means - chance)) / np.maximum((weighted * shapes).sum(-1), 1e-300)
    shares = np.clip(heights / (1 - chance), 1e-4, 1 - 1e-4)
    costs = ((chance + (1 - chance) * shares[..., None] * shapes - curve.means) ** 2) @ curve.counts
    theta[..., 0] = np.log(shares / (1 - shares))
    blocks = np.array_split(np.arange(GRID[1]), STARTS)
    return np.stack([theta[:, block].reshape(-1, 3)[np.argmin(costs[:, block])] for block in blocks])


def _covariance(curve: Curve, slopes: np.ndarray, variance: float) -> np.ndarray | None:
    """float[3, 3], the covariance in `fit`; None if the levels do not determine every parameter.

    Args:
      slopes: float[k, 3], J.
      variance: squared deviation of the level means, of mean weight.
    """
    weights = curve.counts / curve.counts.mean()
    left, sizes, right = np.linalg.svd(np.sqrt(weights)[:, None] * slopes, full_matrices=False)
    if sizes[-1] <= SINGULAR * sizes[0]:
        return None
    of_seeds = curve.squares / np.maximum(curve.counts - 1, 1) / curve.counts
    solved = (right.T / sizes) @ left.T * np.sqrt(weights * np.maximum(variance / weights, of_seeds))
    return solved @ solved.T


def _freedom(curve: Curve, variance: float) -> float:
    """Those of the two parts of the noise, after Satterthwaite (1946). `variance` as of `_covariance`."""
    of_means, spare = len(curve.means) - PARAMETERS, curve.counts.sum() - len(curve.means)
    of_seeds = curve.squares.sum() / spare / curve.counts.mean() if spare else 0.0
    of_law = max(0.0, variance - of_seeds)
    if of_seeds == 0:
        return of_means
    return float((of_seeds + of_law) ** 2 / (of_law**2 / of_means + of_seeds**2 / spare))


def held_out(levels: Levels, chance: float, family: str) -> HeldOut:
    """Every level on the sparse side of the peak, predicted from the others. Arguments as of `fit`."""
    side = sparse_side(levels)
    densities, predictions = side.curve.densities, {}
    for index, density in enumerate(densities.tolist()):
        rest = take(side.curve, np.arange(len(densities)) != index)
        theta = _fit_curve(rest, chance, family, side.peak, ()).theta
        predictions[density] = None
        if theta is not None:
            predictions[density] = float(families.accuracy(FAMILIES[family], theta, np.array([density]), chance)[0])
    measured = dict(zip(predictions, side.curve.means.tolist(), strict=True))
    missing = not predictions or None in predictions.values()
    misses = None if missing else [abs(predictions[density] - mean) for density, mean in measured.items()]
    return HeldOut(None if misses is None else float(np.mean(misses)), predictions, measured)


def choose(levels: Levels, chance: float) -> Choice:
    """The family of least held-out error, fitted to all levels of the sparse side; the first of equals.

    Arguments as of `fit`. With fewer levels than parameters and one more no law is fitted. The intervals of the fit
    are those of its family: that another might have been chosen is not in them, but its held-out error is there to see.
    """
    side = sparse_side(levels)
    reason = _no_fit(side.curve, chance, LEAST_LEVELS, side.peak)
    if reason is not None:
        return Choice(None, {}, reason)
    errors = {family: held_out(levels, chance, family) for family in FAMILIES}
    able = [family for family, found in errors.items() if found.error is not None]
    if not able:
        return Choice(None, errors, "no family could be fitted without every one of the levels")
    best = fit(levels, chance, min(able, key=lambda family: errors[family].error))
    return Choice(best, errors, best.reason if best.theta is None else None)
