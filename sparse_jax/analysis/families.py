"""The laws of accuracy against density, and what each of their parameters is called."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

FARTHEST = 30.0  # |z|, where every shape has reached its limit to 13 digits
CEILING_RANGE = (-12.0, 12.0)  # of the logit: the ceiling is 6 millionths off chance, or off 1
STEEPNESS_RANGE = (-4.0, 5.0)  # of log h: from a slope seen over no measurable range to a step
BEYOND = 7.0  # of log d₀: a thousand times sparser or denser than measured
LARGEST_LOG = 700.0  # of what is a float


class Family(NamedTuple):
    """A law with three parameters: accuracy = c + (A − c) s(z), z = h (ln d − ln d₀), c the known chance.

    Attributes:
      equation: as it is reported, in the names of `quantities`.
      shape: s(z), rising from 0 to 1.
      slope: ds/dz.
      inverse: z of a share s in (0, 1).
      quantities: the parameters of the equation by name, as functions of float[..., 3] theta and chance.
    """

    equation: str
    shape: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]
    quantities: dict[str, Callable[[np.ndarray, float], np.ndarray]]


# theta = (logit of (A − c) / (1 − c), ln d₀, ln h): every theta is a law, so that no fit leaves the domain
PARAMETERS = 3


def bounds(densities: np.ndarray) -> np.ndarray:
    """float[3, 2]: the least and the largest value of each of theta, for levels float[k], sparsest first."""
    x = np.log(densities)
    return np.array([CEILING_RANGE, (x[0] - BEYOND, x[-1] + BEYOND), STEEPNESS_RANGE])


def ceiling(theta: np.ndarray, chance: float) -> np.ndarray:
    """A: the accuracy that the law never exceeds, in (chance, 1)."""
    return chance + (1 - chance) * special.expit(theta[..., 0])


def accuracy(family: Family, theta: np.ndarray, densities: np.ndarray, chance: float) -> np.ndarray:
    """The law: float[..., 3], float[k] -> float[..., k]."""
    share = family.shape(steps(theta, densities))
    return chance + (ceiling(theta, chance)[..., None] - chance) * share


def jacobian(family: Family, theta: np.ndarray, densities: np.ndarray, chance: float) -> np.ndarray:
    """Derivatives of the law by theta: float[3], float[k] -> float[k, 3]."""
    z, share, height = steps(theta, densities), special.expit(theta[0]), ceiling(theta, chance) - chance
    slope = height * family.slope(z)
    return np.stack([(1 - share) * height * family.shape(z), -slope * np.exp(theta[2]), slope * z], axis=-1)


def log_density(family: Family, theta: np.ndarray, level: float, chance: float) -> np.ndarray:
    """ln d at which the law has the accuracy `level`, above chance; infinite where its ceiling is not above it."""
    share = (level - chance) / (ceiling(theta, chance) - chance)
    reached = share < 1
    z = family.inverse(np.where(reached, share, 0.5))
    return np.where(reached, theta[..., 1] + z * np.exp(-theta[..., 2]), np.inf)


def steps(theta: np.ndarray, densities: np.ndarray) -> np.ndarray:
    z = np.exp(theta[..., 2, None]) * (np.log(densities) - theta[..., 1, None])
    return np.clip(z, -FARTHEST, FARTHEST)


def _factor(theta: np.ndarray, chance: float) -> np.ndarray:
    """b = (A − c) d₀^h: then the error is 1 − c at d₀."""
    log = np.log(ceiling(theta, chance) - chance) + theta[..., 1] * np.exp(theta[..., 2])
    return np.exp(np.clip(log, -LARGEST_LOG, LARGEST_LOG))


MIDDLE_AND_STEEPNESS = {
    "A": ceiling,
    "d₀": lambda theta, chance: np.exp(theta[..., 1]),
    "h": lambda theta, chance: np.exp(theta[..., 2]),
}
POWER = {
    "e∞": lambda theta, chance: 1 - ceiling(theta, chance),
    "b": _factor,
    "a": lambda theta, chance: np.exp(theta[..., 2]),
}

FAMILIES = {
    # d₀ is where accuracy is half-way between chance and A
    "logistic": Family(
        "accuracy = c + (A − c) / (1 + (d₀/d)^h)",
        special.expit,
        lambda z: special.expit(z) * special.expit(-z),
        special.logit,
        MIDDLE_AND_STEEPNESS,
    ),
    # Fréchet in d, Gompertz in ln d; at d₀ it has 1/e of the way. Steeper below d₀ than above
    "gompertz": Family(
        "accuracy = c + (A − c) exp(−(d₀/d)^h)",
        lambda z: np.exp(-np.exp(-z)),
        lambda z: np.exp(-z - np.exp(-z)),
        lambda share: -np.log(-np.log(share)),
        MIDDLE_AND_STEEPNESS,
    ),
    # 1 − c is the error of chance, so accuracy is never under c. A smooth saturation b d⁻ᵃ / (1 + b d⁻ᵃ) would be the
    # logistic law, and 1 − exp(−b d⁻ᵃ) the Gompertz law: what is left for a power law is the sharp corner at d₀
    "power": Family(
        "error = min(1 − c, e∞ + b d⁻ᵃ)",
        lambda z: np.maximum(0, -np.expm1(-z)),
        lambda z: np.where(z > 0, np.exp(-z), 0),
        lambda share: -np.log1p(-share),
        POWER,
    ),
}
