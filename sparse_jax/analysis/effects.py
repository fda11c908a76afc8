"""What one value of a setting does in place of another, everywhere or under a condition: all of it, tested together."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from sparse_jax.analysis.crossing import RUN, SEED, STATUS, VALUE, Crossed, is_ordered
from sparse_jax.analysis.statistics import ROUNDING, holm

LEAST_SPREAD = 1e-5  # of the median variance; less is a coincidence of whole examples (as in Smyth's limma)


class Contrast(NamedTuple):
    """Two values of a setting, and where they are compared.

    Attributes:
      factor, first, second: the effect is that of `first` in place of `second`.
      condition: the setting that divides the pairs of runs in two, None if all are taken together.
      here, there: its values on the two sides, together all; empty without a condition.
    """

    factor: str
    first: str
    second: str
    condition: str | None
    here: tuple[str, ...]
    there: tuple[str, ...]


class Effect(NamedTuple):
    """A contrast seed by seed, NaN where a seed has no pair, and its tests.

    Attributes:
      values: float[seeds]; of a condition the effect here less that there, otherwise the effect.
      here, there: float[seeds], the effects on both sides; without a condition `here` is `values`, and there is no
        `there`.
      pairs: numbers of pairs of runs here and there.
      adjusted_p: Holm's over all contrasts, of the test that `values` are 0 on average; None of fewer than two seeds.
      reversal_p: the same of the test that the signs are not opposite here and there; None without a condition.
    """

    contrast: Contrast
    values: np.ndarray
    here: np.ndarray
    there: np.ndarray | None
    pairs: tuple[int, int]
    adjusted_p: float | None
    reversal_p: float | None


class Pairs(NamedTuple):
    """Runs that differ in one factor only, side by side: rows are all else and the seed."""

    values: np.ndarray  # float[rows, values of the factor], NaN where there is no run
    runs: np.ndarray  # the same of run ids
    statuses: np.ndarray  # ... and of how they ended
    keys: dict[str, np.ndarray]  # the other factors, text[rows]
    seeds: np.ndarray  # int[rows], places among all seeds


def side_by_side(crossed: Crossed, factor: str) -> Pairs:
    """The runs of a study by the values of one factor."""
    others = [name for name in crossed.factors if name != factor]
    order = list(crossed.orders[factor])
    wide = crossed.table.drop_duplicates([*others, SEED, factor]).pivot(index=[*others, SEED], columns=factor)
    index = wide.index.to_frame(index=False)
    _, seeds = np.unique(crossed.table[SEED], return_inverse=True)
    places = dict(zip(crossed.table[SEED], seeds.tolist(), strict=True))
    parts = [wide[name].reindex(columns=order).to_numpy() for name in (VALUE, RUN, STATUS)]
    keys = {name: index[name].to_numpy() for name in others}
    return Pairs(parts[0].astype(float), *parts[1:], keys, index[SEED].map(places).to_numpy())


def contrasts(crossed: Crossed) -> Iterator[Contrast]:
    """Every contrast that may become a rule; none of them is chosen by what the runs gave.

    Of names all pairs are compared, of numbers (such as sparsities) only neighbours. Every pair is compared once
    everywhere, and once for every way to divide the values of another factor: one name and all others, or numbers up
    to some value and above it.
    """
    for factor, order in crossed.orders.items():
        near = itertools.pairwise if is_ordered(order) else lambda values: itertools.combinations(values, 2)
        for first, second in near(order):
            yield Contrast(factor, first, second, None, (), ())
            for condition in (name for name in crossed.factors if name != factor):
                for here, there in _divided(crossed.orders[condition]):
                    yield Contrast(factor, first, second, condition, here, there)


def _divided(values: Sequence[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    if is_ordered(values) or len(values) == 2:
        yield from ((tuple(values[at:]), tuple(values[:at])) for at in range(1, len(values)))
    else:
        yield from (((one,), tuple(other for other in values if other != one)) for one in values)


def effects(crossed: Crossed) -> list[Effect]:
    """Every contrast of which some seed has pairs, with tests whose p values are adjusted for all of them.

    Runs are paired where all else is equal, the seed included, and averaged within the seed first: seeds are the
    independent units, the tests are paired t tests over seeds. Their spread is moderated: see `moderated`.
    """
    found, scales = [], []
    for factor, group in itertools.groupby(contrasts(crossed), key=lambda one: one.factor):
        pairs = side_by_side(crossed, factor)
        for contrast in group:
            if (one := _effect(contrast, crossed, pairs)) is not None:
                found.append(one[0])
                scales.append(one[1])
    if not found:
        return []
    values = np.stack([one.values for one in found])
    heres = np.stack([one.here for one in found])
    theres = np.stack([one.here if one.there is None else one.there for one in found])
    scale = np.array(scales)
    p_values = moderated(np.concatenate([values, heres, theres]), scale.T.ravel(), _independent(crossed))
    of_value, of_here, of_there = p_values.reshape(3, -1)
    opposite = np.nanmean(heres, axis=1) * np.nanmean(theres, axis=1) < 0
    reversal = np.where(opposite, np.maximum(of_here, of_there), 1.0)
    divided = np.array([one.there is not None for one in found])
    tested = [(at, 0) for at in np.flatnonzero(np.isfinite(of_value))]
    tested += [(at, 1) for at in np.flatnonzero(np.isfinite(of_value) & divided)]
    adjusted = dict(zip(tested, holm([(of_value, reversal)[which][at] for at, which in tested]), strict=True))
    return [
        one._replace(adjusted_p=adjusted.get((at, 0)), reversal_p=adjusted.get((at, 1))) for at, one in enumerate(found)
    ]


def _effect(contrast: Contrast, crossed: Crossed, pairs: Pairs) -> tuple[Effect, tuple[float, float, float]] | None:
    """A contrast without its tests, and by how much more its variances are than those of a run."""
    differences, rows = _differences(contrast, crossed, pairs), np.ones(len(pairs.seeds), bool)
    seeds = crossed.table[SEED].nunique()
    if contrast.condition is None:
        means, counts = _by_seed(differences, rows, pairs.seeds, seeds)
        if not counts.any():
            return None
        return Effect(contrast, means, means, None, (int(counts.sum()), 0), None, None), (_scale(counts),) * 3
    rows = np.isin(pairs.keys[contrast.condition], contrast.here)
    sides = [_by_seed(differences, side, pairs.seeds, seeds) for side in (rows, ~rows)]
    (here, counts), (there, others) = sides
    if not (both := (counts > 0) & (others > 0)).any():
        return None
    scales = _scale(counts[both]), _scale(others[both])
    one = Effect(contrast, here - there, here, there, (int(counts.sum()), int(others.sum())), None, None)
    return one, (sum(scales), *scales)


def _differences(contrast: Contrast, crossed: Crossed, pairs: Pairs) -> np.ndarray:
    order = crossed.orders[contrast.factor]
    first, second = (pairs.values[:, order.index(value)] for value in (contrast.first, contrast.second))
    return first - second


def _by_seed(differences: np.ndarray, rows: np.ndarray, seeds: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean difference of every seed, NaN where it has none, and how many it has."""
    kept = rows & np.isfinite(differences)
    counts = np.bincount(seeds[kept], minlength=count)
    sums = np.bincount(seeds[kept], differences[kept], minlength=count)
    return np.divide(sums, counts, out=np.full(count, np.nan), where=counts > 0), counts


def _scale(counts: np.ndarray) -> float:
    """The variance of a mean of so many differences by that of a run, on average over seeds."""
    return float(np.mean(2 / counts[counts > 0]))


def _independent(crossed: Crossed) -> int:
    """How many degrees of freedom the runs have among seeds, beside those of their cells and of the seeds."""
    cells = crossed.table.groupby(list(crossed.factors), sort=False).ngroups
    return max(1, len(crossed.table) - cells - crossed.table[SEED].nunique() + 1)


def moderated(values: np.ndarray, scales: np.ndarray, most: int) -> np.ndarray:
    """Two-sided p values of moderated t tests that means are 0 (Smyth 2004, doi:10.2202/1544-6115.1027, section 3).

        s̃² = (d₀ s₀² + d s²) / (d₀ + d),   t = x̄ / (s̃ √(c / n)) with d₀ + d degrees of freedom

    Three seeds tell little of a spread, d = 2. All contrasts of a study together tell how spreads are distributed: as
    s₀² d₀ / χ²(d₀) about s₀², fitted to the mean and variance of log s². Where they differ much from each other, as
    where some networks collapse, d₀ is small, and little is borrowed. Contrasts that share runs are not independent,
    so that d₀ + d is held at no more than the runs have degrees of freedom, as in limma [else it could be infinite].

    Args:
      values: float[tests, seeds], NaN where missing.
      scales: float[tests], c: the variances are c times those of a single run, s².
      most: the most degrees of freedom of a test.

    Returns:
      float[tests], NaN with fewer than two seeds; 0 or 1 where nothing has any spread.
    """
    counts = np.isfinite(values).sum(axis=1)
    p_values, usable = np.full(len(values), np.nan), counts > 1
    if not usable.any():
        return p_values
    kept, n, scale = values[usable], counts[usable], scales[usable]
    means, df = np.nanmean(kept, axis=1), n - 1
    variances = np.nanvar(kept, axis=1, ddof=1) / scale
    if (median := np.median(variances)) <= (ROUNDING * np.nanmax(np.abs(values))) ** 2:
        p_values[usable] = np.where(np.abs(means) > ROUNDING * np.nanmax(np.abs(values)), 0.0, 1.0)
        return p_values
    prior, prior_df = _prior(np.maximum(variances, LEAST_SPREAD * median), df)
    shrunk = prior if np.isinf(prior_df) else (prior_df * prior + df * variances) / (prior_df + df)
    errors = np.sqrt(shrunk * scale / n)
    p_values[usable] = 2 * stats.t.sf(np.abs(means) / errors, np.minimum(prior_df + df, np.maximum(most, df)))
    return p_values


def _prior(variances: np.ndarray, df: np.ndarray) -> tuple[float, float]:
    """s₀² and d₀ by moments of log s²: those of log F beside what is left between contrasts."""
    logs = np.log(variances) - special.digamma(df / 2) + np.log(df / 2)
    between = logs.var(ddof=1) - np.mean(special.polygamma(1, df / 2)) if len(logs) > 1 else 0.0
    if between <= 0:
        return float(np.exp(logs.mean())), np.inf
    half = np.exp(optimize.brentq(lambda log: special.polygamma(1, np.exp(log)) - between, -20, 20))
    return float(np.exp(logs.mean() + special.digamma(half) - np.log(half))), float(2 * half)
