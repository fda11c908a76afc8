"""A measured curve: accuracies over seeds at several densities, made fit for fitting."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from sparse_jax.analysis.statistics import ROUNDING, are_equal, known

Levels = Mapping[float, Iterable[float | None]]  # density -> one accuracy in [0, 1] a seed, None where missing
CLEAR = 3.0  # standard errors below the peak from which on a denser level is worse than it


class Curve(NamedTuple):
    """The levels of a curve, sparsest first.

    Attributes:
      densities: float[k], in (0, 1], increasing.
      means: float[k], over the seeds of a level.
      counts: float[k], how many seeds a level has, at least 1.
      squares: float[k], Σ (y − ȳ)² of a level.
    """

    densities: np.ndarray
    means: np.ndarray
    counts: np.ndarray
    squares: np.ndarray

    @property
    def is_constant(self) -> bool:
        """Whether all levels have the same mean."""
        return len(self.means) == 0 or are_equal(self.means, np.abs(self.means).max())


class Side(NamedTuple):
    """The part of a curve that a law may describe.

    Attributes:
      curve: what is left.
      peak: density of the largest mean, the sparsest of equals, where denser levels are worse. Else None.
      left_out: densities that are not in `curve`: those denser than the peak, and any that have no logarithm.
    """

    curve: Curve
    peak: float | None
    left_out: tuple[float, ...]


def to_curve(levels: Levels) -> Curve:
    """The levels that have values, in order. Densities that are not positive numbers have no logarithm and no place."""
    values = {float(density): np.array(known(runs)) for density, runs in levels.items()}
    kept = sorted(density for density, runs in values.items() if len(runs) and _has_logarithm(density))
    rows = [(density, *_describe(values[density])) for density in kept]
    return Curve(*np.array(rows, float).reshape(-1, len(Curve._fields)).T)


def _describe(runs: np.ndarray) -> tuple[float, int, float]:
    return runs.mean(), len(runs), np.sum((runs - runs.mean()) ** 2)


def _has_logarithm(density: float) -> bool:
    return bool(np.isfinite(density)) and density > 0


def take(curve: Curve, chosen: slice | np.ndarray) -> Curve:
    """Some of the levels of a curve."""
    return Curve(*(part[chosen] for part in curve))


def sparse_side(levels: Levels) -> Side:
    """The levels up to the density of the largest mean: laws rise with density, and a curve past its peak falls.

    Denser levels are left out if one of them is worse than the peak by more than noise explains: by more than three
    standard errors of the difference, √(s² (1/n + 1/n′)) with s² pooled over the levels; where no level has two
    runs, by anything. On a plateau the largest mean stands anywhere by luck, and the levels beside it are kept.
    """
    curve = to_curve(levels)
    odd = tuple(float(density) for density in levels if not _has_logarithm(density))
    if len(curve.means) == 0:
        return Side(curve, None, odd)
    top = int(np.argmax(curve.means))
    spare = curve.counts.sum() - len(curve.counts)
    variance = curve.squares.sum() / spare if spare else 0.0
    errors = np.sqrt(variance * (1 / curve.counts[top + 1 :] + 1 / curve.counts[top]))
    if not (curve.means[top] - curve.means[top + 1 :] > CLEAR * errors + ROUNDING).any():
        return Side(curve, None, odd)
    beyond = curve.densities[top + 1 :].tolist()
    return Side(take(curve, slice(top + 1)), float(curve.densities[top]), (*odd, *beyond))
