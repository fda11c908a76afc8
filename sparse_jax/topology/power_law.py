"""The power law that fits a distribution of degrees best: discrete maximum likelihood, in NumPy."""

from dataclasses import dataclass

import numpy as np

LEAST_DISTINCT = 3  # two distinct degrees fit exactly whatever they are
TERMS = 40  # of the sum; then (40 + q)^−α is below e^−40, or the correction below 1e-10
STEPS = 80  # each leaves two thirds of the bracket


@dataclass(frozen=True)
class PowerLaw:
    """p(k) = k^−α / ζ(α, xmin) for k ≥ xmin.

    Attributes:
      exponent: α > 1.
      xmin: the least degree that it describes.
      distance: Kolmogorov–Smirnov distance between the degrees from xmin on and the law, in [0, 1].
      tail: the number of degrees from xmin on.
    """

    exponent: float
    xmin: int
    distance: float
    tail: int


def fit_power_law(degrees: np.ndarray, xmin: int | None = None) -> PowerLaw | None:
    """The exponent of the degrees from `xmin` on, by exact discrete maximum likelihood.

        α = argmax −α Σ ln k − n ln ζ(α, xmin)

    Without `xmin` the degree whose fit has the least Kolmogorov–Smirnov distance is chosen, the lowest of equals
    (Clauset, Shalizi and Newman 2009, arXiv:0706.1062, sections 3.1 and 3.3). Degree 0 is no part of a power law.
    A fit says nothing of whether a power law is plausible: look at `distance` and `tail`.

    Args:
      degrees: int[n], at least 0.
      xmin: positive, or None to choose it.

    Returns:
      the fit, or None with fewer than three distinct degrees from `xmin` on.
    """
    if xmin is not None and xmin < 1:
        raise ValueError(f"xmin is {xmin}, not positive")
    values = np.unique(degrees[degrees >= (xmin or 1)])
    if len(values) < LEAST_DISTINCT:
        return None
    starts = values[: 1 - LEAST_DISTINCT] if xmin is None else np.array([xmin])
    tails = [degrees[degrees >= start] for start in starts]
    mean_logs = [np.log(tail / start).mean() for tail, start in zip(tails, starts, strict=True)]
    exponents = _exponents(starts, np.array(mean_logs))
    distances = [_distance(*fit) for fit in zip(tails, exponents, starts, strict=True)]
    best = int(np.argmin(distances))
    return PowerLaw(float(exponents[best]), int(starts[best]), float(distances[best]), len(tails[best]))


def _log_zeta(exponent: np.ndarray, start: np.ndarray) -> np.ndarray:
    """ln Σ_{k ≥ 0} (1 + k/q)^−α = ln ζ(α, q) + α ln q, element by element, for α > 1 and q ≥ 1.

    The first terms, and the rest by the Euler–Maclaurin formula. Scaled by q^α, which nothing underflows.
    """
    k = np.arange(TERMS)
    head = np.exp(-exponent[:, None] * np.log1p(k / start[:, None])).sum(1)
    end = start + TERMS
    edge = np.exp(-exponent * np.log(end / start))
    third = exponent * (exponent + 1) * (exponent + 2) / (720 * end.astype(float) ** 3)
    return np.log(head + edge * (end / (exponent - 1) + 0.5 + exponent / (12 * end) - third))


def _exponents(starts: np.ndarray, mean_logs: np.ndarray) -> np.ndarray:
    """The maximum of −α ⟨ln k/q⟩ − ln Σ (1 + k/q)^−α, concave in α, by ternary search for all q at once."""

    def likelihood(exponent: np.ndarray) -> np.ndarray:
        return -exponent * mean_logs - _log_zeta(exponent, starts)

    low, high = np.full(len(starts), 1 + 1e-9), np.full(len(starts), 2.0)
    while (rising := likelihood(2 * high) > likelihood(high)).any():
        high = np.where(rising, 2 * high, high)
    high = 2 * high
    for _ in range(STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        rising = likelihood(left) < likelihood(right)
        low, high = np.where(rising, left, low), np.where(rising, high, right)
    return (low + high) / 2


def _distance(tail: np.ndarray, exponent: float, start: int) -> float:
    """max_k |S(k) − P(k)| over the integers from `start` to the largest degree, cumulative both."""
    counts = np.bincount(tail - start)
    log_zeta = _log_zeta(np.array([exponent]), np.array([start]))
    law = np.exp(-exponent * np.log1p(np.arange(len(counts)) / start) - log_zeta)
    return np.abs(counts.cumsum() / len(tail) - law.cumsum()).max()
