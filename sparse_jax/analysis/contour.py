"""The extreme-sparse contour: the density at which accuracy crosses a fraction of the way from chance to dense."""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize

from sparse_jax.analysis.statistics import LEAST_BOOTSTRAP, RESAMPLES, RESAMPLING_SEED, Interval, expanded, known

FRACTION = 0.5
Seeds = Mapping[Hashable, float | None]  # seed -> accuracy in [0, 1], None where missing
Row = Mapping[float, Seeds]  # density -> seed -> accuracy


class Crossing(NamedTuple):
    """Where one row crosses.

    Attributes:
      density: None where the crossing was not measured, and `side` says where it lies. The interval ends at 0 or 1,
        where densities do, if it leaves what was measured; no ends with fewer than five seeds.
      side: such as "below 0.001", "above 0.5", or "not reached up to 0.5" by a row whose best level is not its
        densest; None also where nothing was measured.
      fan_in: mean fan-in at the crossing and at the ends of its interval; None if unknown.
      target: the accuracy to cross; None if nothing was measured.
      dense_measured: whether there are dense runs; if not, the best level stands for them.
      seeds: number of seeds that were resampled.
    """

    density: Interval | None
    side: str | None
    fan_in: Interval | None
    target: float | None
    dense_measured: bool
    seeds: int


def contour(
    rows: Mapping[Hashable, Row],
    dense: Mapping[Hashable, Seeds],
    fan_in: Mapping[Hashable, Mapping[float, float]],
    chance: float,
    confidence: float,
    fraction: float = FRACTION,
) -> dict[Hashable, Crossing]:
    """`crossing` of every row, such as an activation or a width. Rows without dense runs or fan-in may be absent there.

    Args:
      rows: row -> density -> seed -> accuracy.
      dense: row -> seed -> accuracy of the dense network.
      fan_in: row -> density -> mean incoming connections of a neuron.
    """
    return {
        name: crossing(row, dense.get(name, {}), fan_in.get(name, {}), chance, confidence, fraction)
        for name, row in rows.items()
    }


def crossing(
    row: Row, dense: Seeds, fan_in: Mapping[float, float], chance: float, confidence: float, fraction: float = FRACTION
) -> Crossing:
    """The density at which the mean curve of the seeds crosses chance + fraction (dense − chance).

    The level means up to the largest are made to rise with density by isotonic regression, weighted by seeds, and
    joined by straight lines over ln density; where the curve is level on the target, the sparsest density counts.
    Seeds are resampled whole, over all levels and the dense runs at once, which keeps what a seed has in common; the
    interval is the expanded percentile one (`statistics.expanded`).

    Args:
      row: density, positive -> seed -> accuracy.
      dense: seed -> accuracy; without a value the best level mean stands in.
      fan_in: density -> mean fan-in, may be empty. Between levels it is interpolated over logarithms.
      chance: accuracy of always naming the largest class.
      fraction: in (0, 1).
    """
    densities = np.array(sorted(density for density, seeds in row.items() if density > 0 and known(seeds.values())))
    columns = [*(row[density] for density in densities.tolist()), dense]
    measured = bool(known(dense.values()))
    table = _table(columns)
    if len(densities) == 0:
        return Crossing(None, None, None, None, measured, 0)
    x = np.log(densities)
    place, target = _cross(table, np.ones(len(table)), x, chance, fraction)
    if not np.isfinite(place):
        return Crossing(None, _side(place, target, densities, table, chance), None, target, measured, len(table))
    interval = Interval(float(np.exp(place)), None, None)
    if len(table) >= LEAST_BOOTSTRAP:
        low, high = _ends(table, x, chance, fraction, confidence)
        interval = Interval(interval.value, min(low, interval.value), max(high, interval.value))
    return Crossing(interval, None, _fan_in(interval, fan_in), target, measured, len(table))


def _table(columns: Sequence[Seeds]) -> np.ndarray:
    """float[seeds, columns], NaN where missing; seeds without any value are none."""
    seeds = list(dict.fromkeys(seed for column in columns for seed in column))
    rows = [[np.nan if column.get(seed) is None else column[seed] for column in columns] for seed in seeds]
    table = np.array(rows, float).reshape(len(seeds), len(columns))
    table[~np.isfinite(table)] = np.nan
    return table[np.isfinite(table).any(axis=1)]


def _cross(
    table: np.ndarray, times: np.ndarray, x: np.ndarray, chance: float, fraction: float
) -> tuple[float, float]:
    """ln density of the crossing, −∞ where the sparsest level is above the target, ∞ where none reaches it; the target.

    Args:
      table: float[seeds, levels + 1], NaN where missing; the dense runs last. Every level has a seed that counts.
      times: float[seeds], how often each seed counts.
      x: float[levels], increasing.
    """
    sums, weights = times @ np.nan_to_num(table), times @ np.isfinite(table)
    means = sums[:-1] / weights[:-1]
    top = int(np.argmax(means))
    reference = sums[-1] / weights[-1] if weights[-1] else means[top]
    target = float(chance + fraction * (reference - chance))
    rising = optimize.isotonic_regression(means[: top + 1], weights=weights[: top + 1]).x
    above = int(np.searchsorted(rising, target))  # the sparsest level that reaches the target
    if reference <= chance or above > top:
        return np.inf, target
    if above == 0:
        return (float(x[0]) if rising[0] == target else -np.inf), target
    share = (target - rising[above - 1]) / (rising[above] - rising[above - 1])
    return float(x[above - 1] + share * (x[above] - x[above - 1])), target


def _side(place: float, target: float, densities: np.ndarray, table: np.ndarray, chance: float) -> str:
    """Where a crossing lies that was not measured."""
    if target <= chance:
        return "nothing to cross: dense is not above chance"
    if place < 0:
        return f"below {densities[0]:g}"
    means = np.nanmean(table[:, :-1], axis=0)
    return f"{'above' if means[-1] == means.max() else 'not reached up to'} {densities[-1]:g}"


def _ends(
    table: np.ndarray, x: np.ndarray, chance: float, fraction: float, confidence: float
) -> tuple[float, float]:
    """The interval of the density, of resamples that leave every level, and the dense runs, a seed."""
    n, there = len(table), np.isfinite(table)
    resamples = np.random.default_rng(RESAMPLING_SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    resamples = resamples[(resamples @ there > 0)[:, there.any(axis=0)].all(axis=1)]
    distinct, repeats = np.unique(resamples, axis=0, return_counts=True)
    places = np.repeat([_cross(table, times, x, chance, fraction)[0] for times in distinct], repeats)
    tail = (1 - expanded(confidence, n)) / 2
    low, high = np.quantile(places, [tail, 1 - tail], method="inverted_cdf")
    return float(np.exp(low)), float(np.exp(min(high, 0.0)))


def _fan_in(densities: Interval, fan_in: Mapping[float, float]) -> Interval | None:
    """Fan-in at the densities; in proportion to density outside the levels that it is known of."""
    levels = sorted(level for level, mean in fan_in.items() if level > 0 and mean > 0)
    if not levels:
        return None
    x, y = np.log(levels), np.log([fan_in[level] for level in levels])

    def at(density: float | None) -> float | None:
        if not density:
            return density
        inside = np.clip(np.log(density), x[0], x[-1])
        return float(np.exp(np.interp(inside, x, y) + np.log(density) - inside))

    return Interval(*map(at, densities))
