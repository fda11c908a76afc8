"""What a level of sparsity has come to: as good as dense, degrading, extreme or collapsed."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sparse_jax.analysis.levels import Levels
from sparse_jax.analysis.statistics import ROUNDING, Interval, known, mean_interval

AS_GOOD, DEGRADING, EXTREME, COLLAPSED = "as good as dense", "degrading", "extreme", "collapsed"
CATEGORIES = (AS_GOOD, DEGRADING, EXTREME, COLLAPSED)
TOLERANCE = 0.01  # of accuracy under the dense network that still counts as as good
COLLAPSE_DEVIATIONS = 3
DENSE, MEASURED_DENSE, BEST = "dense runs", "level of density 1", "best measured level"  # what stands for dense


@dataclass(frozen=True)
class Level:
    """One level of density.

    Attributes:
      accuracy: mean over the seeds.
      category: that of the mean.
      certain: whether both ends of the interval are in that category, too; None without an interval.
    """

    accuracy: Interval
    category: str
    certain: bool | None


@dataclass(frozen=True)
class Categories:
    """The levels of a curve, sparsest first.

    Attributes:
      reference: accuracy of the dense network, or of what stands for it; None if nothing was measured.
      reference_is: DENSE, MEASURED_DENSE or BEST.
      reference_density: 1, or that of the best level.
      collapse_line: accuracy up to which a level has collapsed.
      half_way: accuracy under which a level is extreme.
    """

    reference: Interval | None
    reference_is: str | None
    reference_density: float | None
    collapse_line: float
    half_way: float | None
    levels: dict[float, Level]


def collapse_line(majority: float, examples: int) -> float:
    """The accuracy that always naming the largest class reaches by luck: p + 3 √(p (1 − p) / n).

    Args:
      majority: p, its share of the classes.
      examples: n, those that the accuracy was measured on. Means over seeds, too, are of these same examples.
    """
    return majority + COLLAPSE_DEVIATIONS * math.sqrt(majority * (1 - majority) / examples)


def categorize(
    levels: Levels,
    dense: Iterable[float | None],
    majority: float,
    examples: int,
    confidence: float,
    tolerance: float = TOLERANCE,
) -> Categories:
    """The category of every level that has an accuracy, of these the first that holds of its mean.

        collapsed          at most majority + 3 √(majority (1 − majority) / examples)
        extreme            under (majority + dense) / 2
        degrading          under dense − tolerance
        as good as dense   the others

    A category is said to be certain where the confidence interval of the mean does not reach into another. The lines
    themselves are taken as known: the dense mean has an interval of its own, which `reference` shows.

    Args:
      levels: density in (0, 1] -> accuracies, one a seed, None where missing.
      dense: accuracies of dense runs. Of none, the level of density 1 stands in, or else the best level.
      majority: share of the largest class.
      examples: number of test examples.
      confidence: in (0, 1).
      tolerance: in accuracy, not in points.
    """
    intervals = {density: mean_interval(runs, confidence) for density, runs in _measured(levels)}
    line = collapse_line(majority, examples)
    runs, density, kind = known(dense), 1.0, DENSE
    if not runs and not intervals:
        return Categories(None, None, None, line, None, {})
    if not runs:
        density = 1.0 if 1.0 in intervals else max(intervals, key=lambda density: intervals[density].value)
        kind = MEASURED_DENSE if density == 1 else BEST
    reference = mean_interval(runs, confidence) if runs else intervals[density]
    half_way = (majority + reference.value) / 2

    def category(accuracy: float) -> str:
        if accuracy <= line:
            return COLLAPSED
        if accuracy < half_way:
            return EXTREME
        return DEGRADING if accuracy < reference.value - tolerance - ROUNDING else AS_GOOD

    found = {}
    for level, accuracy in intervals.items():
        of_mean = category(accuracy.value)
        ends = None if accuracy.low is None else {category(accuracy.low), category(accuracy.high)}
        found[level] = Level(accuracy, of_mean, None if ends is None else ends == {of_mean})
    return Categories(reference, kind, density, line, half_way, found)


def _measured(levels: Levels) -> list[tuple[float, list[float]]]:
    """Densities with their accuracies, sparsest first."""
    values = sorted((float(density), known(runs)) for density, runs in levels.items())
    return [(density, runs) for density, runs in values if runs]
