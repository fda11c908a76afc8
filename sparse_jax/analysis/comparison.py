"""Settings against each other: paired differences over the same seeds, and ranks over many blocks."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from sparse_jax.analysis.statistics import ROUNDING, Interval, are_equal, holm, t_interval

Values = Mapping[int | str, float | None]  # seed, or any other block -> accuracy, None where missing
LEAST_NAMES, LEAST_BLOCKS = 3, 2  # of a Friedman test


class Difference(NamedTuple):
    """One setting less another, over the blocks that both have.

    Attributes:
      mean: with Student's t interval; None without a pair, without ends of one pair.
      p_value: of the paired t test, two-sided; None of fewer than two pairs.
      pairs: number of blocks with both.
      only_first, only_second: blocks that only one of them has a value of.
    """

    mean: Interval | None
    p_value: float | None
    pairs: int
    only_first: tuple
    only_second: tuple


class Comparison(NamedTuple):
    """Two settings by name, first less second; adjusted_p is Holm's over all that were compared together."""

    first: str
    second: str
    difference: Difference
    adjusted_p: float | None


def paired(first: Values, second: Values, confidence: float) -> Difference:
    """The mean of the differences block by block, and whether it is 0.

        t = d̄ √n / s_d,   n − 1 degrees of freedom

    Equal differences have no spread: p is 1 if they are 0, else 0, its limit. Two or three equal differences are no
    such proof where few test examples make equal accuracies likely: look at `pairs`.
    """
    has_first, has_second = _blocks(first), _blocks(second)
    both = [block for block in has_first if block in set(has_second)]
    mean, p_value = None, None
    if both:
        pairs = np.array([(first[block], second[block]) for block in both], float)
        differences, scale = pairs[:, 0] - pairs[:, 1], float(np.abs(pairs).max())
        if are_equal(differences, scale):
            differences[:] = 0 if abs(differences[0]) <= ROUNDING * scale else differences[0]
            p_value = float(differences[0] == 0)
        else:
            p_value = float(stats.ttest_1samp(differences, 0).pvalue)
        mean = t_interval(differences, confidence)
    only = [tuple(block for block in blocks if block not in set(both)) for blocks in (has_first, has_second)]
    return Difference(mean, p_value if len(both) > 1 else None, len(both), *only)


def _blocks(values: Values) -> list:
    return [block for block, value in values.items() if value is not None and np.isfinite(value)]


def compare(settings: Mapping[str, Values], confidence: float, reference: str | None) -> list[Comparison]:
    """All settings against `reference`, or all pairs of them if it is None.

    p values are Holm's (`statistics.holm`), over all comparisons that have one. The intervals are not adjusted.
    """
    if reference is None:
        names = list(itertools.combinations(settings, 2))
    else:
        names = [(name, reference) for name in settings if name != reference]
    differences = [paired(settings[first], settings[second], confidence) for first, second in names]
    tested = [index for index, difference in enumerate(differences) if difference.p_value is not None]
    adjusted: list[float | None] = [None] * len(names)
    for index, p_value in zip(tested, holm([differences[index].p_value for index in tested]), strict=True):
        adjusted[index] = p_value
    return [Comparison(*pair, *rest) for pair, *rest in zip(names, differences, adjusted, strict=True)]


@dataclass(frozen=True)
class Ranks:
    """Settings ranked block by block, the best of a block 1.

    Attributes:
      mean_ranks: by name, the best first.
      blocks: number of blocks in which every setting has a value.
      left_out: the other blocks.
      p_value: of Friedman's test that all rank alike.
      critical_difference: of two mean ranks, from which on they differ (Nemenyi).
      groups: the largest sets of settings, at least two, in which no two differ; best first.
    """

    mean_ranks: dict[str, float]
    blocks: int
    left_out: tuple
    p_value: float
    critical_difference: float
    groups: list[tuple[str, ...]]


def ranks(table: Mapping[str, Values], confidence: float) -> Ranks | None:
    """Friedman's test and Nemenyi's critical difference (Demšar 2006, JMLR 7, sections 3.2.2 and 4).

        CD = q_α √(k (k + 1) / (6 N))

    for k settings and N blocks (data sets, or seeds: but seeds of one data set say nothing of others), q_α the
    quantile of the studentised range for infinitely many degrees of freedom over √2. Equal accuracies share the
    mean of their ranks. The χ² distribution of Friedman's statistic is rough below ten blocks or five settings.

    Args:
      table: name -> block -> accuracy, larger is better.
      confidence: 1 − α.

    Returns:
      None with fewer than three settings or fewer than two blocks that all have.
    """
    blocks = list(dict.fromkeys(block for values in table.values() for block in values))
    complete = [block for block in blocks if all(block in _blocks(values) for values in table.values())]
    k, n = len(table), len(complete)
    if k < LEAST_NAMES or n < LEAST_BLOCKS:
        return None
    values = np.array([[table[name][block] for name in table] for block in complete], float)
    means = dict(zip(table, stats.rankdata(-values, axis=1).mean(axis=0).tolist(), strict=True))
    means = {name: means[name] for name in sorted(means, key=means.get)}
    tied = bool((values == values[:, :1]).all())
    p_value = 1.0 if tied else float(stats.friedmanchisquare(*values.T).pvalue)
    quantile = stats.studentized_range.ppf(confidence, k, np.inf) / math.sqrt(2)
    critical = float(quantile * math.sqrt(k * (k + 1) / (6 * n)))
    left_out = tuple(block for block in blocks if block not in set(complete))
    return Ranks(means, n, left_out, p_value, critical, _groups(means, critical))


def _groups(means: Mapping[str, float], critical: float) -> list[tuple[str, ...]]:
    """The longest stretches of settings, in the order of their ranks, whose ends are less than `critical` apart."""
    names, groups, last = list(means), [], 0
    for start, name in enumerate(names):
        end = start + sum(means[other] - means[name] < critical for other in names[start:])
        if end > last and end - start > 1:
            groups.append(tuple(names[start:end]))
        last = max(last, end)
    return groups
