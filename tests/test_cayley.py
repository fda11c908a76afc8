"""Cayley expanders: degree, spectrum, the generators by hand, and the nearest to a density."""

import itertools
import math

import numpy as np
import pytest

from sparse_jax.errors import UserError
from sparse_jax.topology.cayley import cayley_topology, chung, nearest
from sparse_jax.topology.circulant import Layers

PRIMES = (2, 3, 5, 7, 11, 13)


def kernels(*sizes):
    return {f"dense_{i}/kernel": pair for i, pair in enumerate(itertools.pairwise(sizes))}


@pytest.mark.parametrize("q", PRIMES)
def test_degree_and_spectrum(q):
    graph = chung(q)
    order = q * q - 1
    assert (graph.order, len(set(graph.steps))) == (order, q)
    mask = graph.mask(order, order)
    assert set(mask.sum(0)) == set(mask.sum(1)) == {q}
    first, *others = np.linalg.svd(mask.astype(float), compute_uv=False)
    assert math.isclose(first, q)
    assert max(others) <= math.sqrt(q) + 1e-9
    assert max(others) >= math.sqrt((order * q - q * q) / (order - 1)) - 1e-9  # as no graph of this degree has less
    wide = graph.mask(3 * order, 2 * order)
    singular = np.linalg.svd(wide.astype(float), compute_uv=False)
    assert math.isclose(singular[0], q * math.sqrt(6))
    assert singular[1] <= math.sqrt(6 * q) + 1e-9


def test_generators_by_hand():
    # F_4: x² = x + 1; x = x^1, x + 1 = x^2
    assert chung(2).steps == (1, 2)
    # F_9: x² = 1 and x² = 2 have the orders 2 and 4; x² = x + 1: x, x + 1, 2x + 1, 2, 2x, 2x + 2, x + 2, 1
    assert chung(3).steps == (1, 2, 7)


def test_the_same_every_time():
    first = chung(11)
    chung.cache_clear()
    assert chung(11) == first
    one, two = (cayley_topology(kernels(784, 300, 100), 0.1)[0] for _ in range(2))
    np.testing.assert_equal(one, two)


def distance(q, sizes, density, copies):
    order = q * q - 1
    masks = [chung(q).mask(*pair) for pair in itertools.pairwise(sizes)]
    if not all(mask.any(0).all() and mask.any(1).all() for mask in masks):
        return math.inf
    entries = sum(mask.size * times for mask, times in zip(masks, copies, strict=True))
    squares = sum(
        mask.size * times / entries * math.log(mask.mean() / density) ** 2
        for mask, times in zip(masks, copies, strict=True)
    )
    return math.sqrt(squares) + sum(math.log(order * math.ceil(size / order) / size) for size in sizes)


@pytest.mark.parametrize("density", [0.6, 0.3, 0.1, 0.03])
@pytest.mark.parametrize("sizes", [(784, 300, 100), (64, 24, 12, 10), (30, 500, 3), (120, 120)])
def test_no_other_expander_is_nearer(sizes, density):
    copies = range(1, len(sizes))
    most = math.isqrt(2 * max(sizes) + 1)
    primes = [q for q in range(2, most + 1) if all(q % d for d in range(2, q))]
    graph = nearest(Layers(sizes, tuple(copies)), density)
    assert graph == chung(min(primes, key=lambda q: distance(q, sizes, density, copies)))


def test_masks_and_line():
    masks, line = cayley_topology(kernels(240, 120, 120), 0.09)
    np.testing.assert_array_equal(masks["dense_0/kernel"], np.tile(chung(11).mask(120, 120), (2, 1)))
    assert line == (
        "nearest to density 0.09: Cayley expander of 120 places and degree 11, widths 2:1:1, density 0.09167"
    )
    masks, line = cayley_topology(kernels(784, 300, 100), 0.1)
    assert "cut: the last 56 of 840 neurons before dense_0, 60 of 360 neurons before dense_1, 20 of 120" in line
    assert all(mask.any(0).all() and mask.any(1).all() for mask in masks.values())


def test_layers_that_no_expander_joins():
    with pytest.raises(UserError, match=r"layers of 1, 20, 50.+--dense_layers=output"):
        cayley_topology(kernels(1, 20, 50), 0.1)
