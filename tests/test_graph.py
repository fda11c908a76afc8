"""Degrees, what topologies share, modularity and power laws, against their definitions."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparse_jax.topology.graph import (
    _merge,
    agreement,
    degree_distribution,
    in_degrees,
    modularity,
    out_degrees,
)
from sparse_jax.topology.power_law import fit_power_law

few = settings(max_examples=60, deadline=None)
DENSE = hnp.arrays(bool, st.tuples(*2 * [st.integers(1, 5)]))
CONV = hnp.arrays(bool, st.tuples(*4 * [st.integers(1, 3)]))


@few
@given(DENSE | CONV)
def test_degrees_count_entries(mask):
    entries = np.argwhere(mask)
    assert in_degrees(mask).tolist() == [int((entries[:, -1] == j).sum()) for j in range(mask.shape[-1])]
    assert out_degrees(mask).tolist() == [int((entries[:, -2] == i).sum()) for i in range(mask.shape[-2])]


def test_degree_distribution():
    assert degree_distribution(np.array([0, 3, 1, 3])).tolist() == [1, 1, 0, 2]


# --- what topologies share -------------------------------------------------------------------------


@few
@given(hnp.arrays(bool, (2, 3, 4)), hnp.arrays(bool, (2, 2, 2)))
def test_agreement_is_of_sets(a, b):
    first, second = ({"l": x, "m": y} for x, y in zip(a, b, strict=True))
    links = [{(name, *index) for name in masks for index in np.argwhere(masks[name])} for masks in (first, second)]
    links = [{(name, *map(int, index)) for name, *index in side} for side in links]
    common, either = len(links[0] & links[1]), len(links[0] | links[1])
    fewest = min(map(len, links))
    found = agreement(first, dict(reversed(second.items())))
    assert (found.common, found.either) == (common, either)
    assert found.overlap == (common / fewest if fewest else None)
    assert found.jaccard == (common / either if either else None)


def test_chance_is_the_mean_overlap_of_random_layers():
    """All pairs of 2 of 3 entries in one layer, and of 1 of 2 in another: (4/3 + 1/2) / 3."""
    layers = [list(itertools.combinations(range(size), count)) for size, count in ((3, 2), (2, 1))]
    topologies = [
        {name: np.isin(np.arange(size), links)[:, None] for name, size, links in zip("ab", (3, 2), pair, strict=True)}
        for pair in itertools.product(*layers)
    ]
    found = [agreement(*pair) for pair in itertools.product(topologies, repeat=2)]
    assert np.mean([one.overlap for one in found]) == pytest.approx(11 / 18)
    assert [one.chance for one in found] == [pytest.approx(11 / 18)] * 36


@pytest.mark.parametrize("second", [{}, {"a": np.ones((2, 1), bool)}, {"a": np.ones((1, 2), bool), "b": 0}])
def test_agreement_of_different_networks(second):
    second = {name: np.asarray(mask, bool) for name, mask in second.items()}
    with pytest.raises(ValueError, match=r"(a|b) differs: .*(absent|1×2 and 2×1)"):
        agreement({"a": np.ones((1, 2), bool)}, second)


# --- modularity ------------------------------------------------------------------------------------


def barber(graph, rows, columns):
    """Barber's Q by its definition."""
    links = graph.sum()
    null = np.outer(graph.sum(1), graph.sum(0)) / links
    return ((graph - null) * np.equal.outer(rows, columns)).sum() / links


def test_modularity_is_nearly_the_best_of_all_partitions():
    """Of every graph of 3 and 3 neurons: never above the optimum, 0.04 below at most, and nearly always there."""
    labels = np.array(list(itertools.product(range(3), repeat=6)))
    together = labels[:, :3, None] == labels[:, None, 3:]
    short = []
    for bits in range(1, 2**9):
        graph = (bits >> np.arange(9).reshape(3, 3) & 1).astype(bool)
        null = np.outer(graph.sum(1), graph.sum(0)) / graph.sum()
        best = (together * (graph - null)).sum((1, 2)).max() / graph.sum()
        short.append(best - modularity(graph))
    assert -1e-12 < min(short) <= max(short) < 0.041
    assert np.mean(np.array(short) > 1e-9) < 0.03


@few
@given(hnp.arrays(bool, (5, 4)))
def test_modularity_is_of_the_graph_whatever_its_direction(graph):
    assert modularity(graph) == modularity(graph.T)


def test_modularity_finds_planted_modules():
    """k complete blocks of the same size: Q = Σ_k (1/k − 1/k²) = 1 − 1/k, and with noise what the blocks have."""
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(np.arange(40) % 4), rng.permutation(np.arange(24) % 4)
    blocks = np.equal.outer(rows, columns)
    assert modularity(blocks) == 3 / 4
    noisy = blocks ^ (rng.random(blocks.shape) < 0.05)
    assert modularity(noisy) >= barber(noisy, rows, columns) - 1e-12
    assert modularity(noisy) > 0.5


def test_modularity_merges_modules():
    """Sparse blocks, which label propagation alone leaves in pieces."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows, columns = rng.permutation(np.arange(90) % 3), rng.permutation(np.arange(60) % 3)
        graph = rng.random((90, 60)) < np.where(np.equal.outer(rows, columns), 0.2, 0.02)
        assert modularity(graph) >= barber(graph, rows, columns) - 0.02


def test_merging_goes_on_until_no_union_gains():
    rng = np.random.default_rng(0)
    for size in range(1, 12):
        gains = rng.integers(-9, 8, (size, size))
        labels = _merge(gains)
        together = np.equal.outer(labels, np.arange(size)).astype(int)
        merged = together.T @ gains @ together  # gains of the new modules
        unions = (merged + merged.T)[~np.eye(size, dtype=bool)]
        assert (unions <= 0).all()
        assert np.trace(merged) >= np.trace(gains)


def test_modularity_of_trivial_layers():
    assert modularity(np.zeros((3, 2), bool)) is None
    assert modularity(np.ones((5, 4), bool)) == 0
    assert modularity(np.eye(10, dtype=bool)) == pytest.approx(0.9)


def test_modularity_of_a_convolution_is_over_channels():
    rng = np.random.default_rng(1)
    mask = rng.random((3, 3, 8, 12)) < 0.05
    assert modularity(mask) == modularity(mask.any((0, 1)))
    doubled = np.concatenate([mask, mask])  # more taps of the same pairs
    assert modularity(doubled) == modularity(mask)


# --- power law -------------------------------------------------------------------------------------


def draw(rng, exponent, xmin, count):
    """Degrees of a discrete power law, cut at 10⁵."""
    k = np.arange(xmin, 100_000)
    law = k**-exponent
    return rng.choice(k, size=count, p=law / law.sum())


def negative_likelihood(exponent, degrees, xmin):
    return exponent * np.log(degrees).sum() + len(degrees) * np.log(scipy.special.zeta(exponent, xmin))


@pytest.mark.parametrize(("exponent", "xmin"), [(2.1, 1), (2.5, 1), (3.0, 4), (4.5, 2)])
def test_recovers_a_planted_exponent(exponent, xmin):
    """Its standard error is about (α − 1) / √n (Clauset et al. 2009, eq. 3.2)."""
    degrees = draw(np.random.default_rng(0), exponent, xmin, 4000)
    fit = fit_power_law(degrees, xmin)
    assert abs(fit.exponent - exponent) < 4 * (exponent - 1) / np.sqrt(4000)
    assert fit.distance < 0.03
    assert (fit.xmin, fit.tail) == (xmin, 4000)


def test_chooses_where_the_law_begins():
    rng = np.random.default_rng(1)
    degrees = np.concatenate([draw(rng, 2.5, 6, 3000), rng.integers(0, 6, 3000)])
    fit = fit_power_law(degrees)
    assert 5 <= fit.xmin <= 8
    assert abs(fit.exponent - 2.5) < 0.15
    assert fit.distance <= min(fit_power_law(degrees, xmin).distance for xmin in range(1, 12))
    assert fit == fit_power_law(degrees, fit.xmin)


@few
@given(st.lists(st.integers(0, 300), min_size=3, max_size=40), st.integers(1, 40))
def test_maximises_the_likelihood(degrees, xmin):
    degrees = np.array(degrees)
    fit = fit_power_law(degrees, xmin)
    tail = degrees[degrees >= xmin]
    if len(np.unique(tail)) < 3:
        assert fit is None
        return
    with np.errstate(all="ignore"):
        best = scipy.optimize.minimize_scalar(
            negative_likelihood, bounds=(1, 2 * fit.exponent), args=(tail, xmin), method="bounded"
        )
    assert negative_likelihood(fit.exponent, tail, xmin) <= best.fun + 1e-6
    k = np.arange(xmin, tail.max() + 1)
    law = 1 - scipy.special.zeta(fit.exponent, k + 1) / scipy.special.zeta(fit.exponent, xmin)
    share = (tail <= k[:, None]).mean(1)
    assert fit.distance == pytest.approx(np.abs(share - law).max(), abs=1e-6)
    assert fit.tail == len(tail)


@pytest.mark.parametrize("degrees", [[0, 0, 0], [5, 5, 5, 5], [0, 1, 2, 2, 1], []])
def test_no_power_law_of_too_few_distinct_degrees(degrees):
    assert fit_power_law(np.array(degrees, int)) is None


def test_narrow_degrees_far_from_zero():
    """A large exponent neither overflows nor hits the end of the search."""
    fit = fit_power_law(np.repeat([1000, 1001, 1002], [980, 15, 5]), 1000)
    assert fit.exponent > 1000
    assert fit.distance < 0.01


def test_xmin_is_positive():
    with pytest.raises(ValueError, match="xmin"):
        fit_power_law(np.array([1, 2, 3]), 0)
