"""NSGA-II against the pseudo-code of its paper in plain NumPy, and the laws of its ranking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparse_jax.search.nsga2 import crowding, dominated_by, fronts, ranking

N = 11
COARSE = arrays(np.float32, (N, 2), elements=st.integers(0, 4).map(float))  # many equal ones
FINE = arrays(np.float32, (N, 3), elements=st.floats(-100, 100, width=16))
POINTS = st.one_of(COARSE, FINE)


def dominates(p, q):
    return all(a >= b for a, b in zip(p, q, strict=True)) and any(a > b for a, b in zip(p, q, strict=True))


def oracle_fronts(points):
    """fast-non-dominated-sort of Deb et al. 2002, section III A."""
    below = [[q for q in range(len(points)) if dominates(points[p], points[q])] for p in range(len(points))]
    count = [sum(dominates(q, p) for q in points) for p in points]
    rank = [0] * len(points)
    front, number = [p for p in range(len(points)) if count[p] == 0], 0
    while front:
        following = []
        for p in front:
            rank[p] = number
            for q in below[p]:
                count[q] -= 1
                if count[q] == 0:
                    following.append(q)
        front, number = following, number + 1
    return np.array(rank)


def oracle_crowding(points, rank):
    """crowding-distance-assignment of section III B, for one front after the other."""
    distance = np.zeros(len(points))
    for number in range(rank.max() + 1):
        front = np.flatnonzero(rank == number)
        for values in points.T.astype(np.float64):
            order = front[np.argsort(values[front], kind="stable")]
            distance[order[[0, -1]]] = np.inf
            span = values[order[-1]] - values[order[0]]
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                distance[i] += (values[after] - values[before]) / span if span else 0
    return distance


@settings(max_examples=150, deadline=None)
@given(POINTS)
def test_fronts_and_distances_are_those_of_the_paper(points):
    rank = oracle_fronts(points)
    np.testing.assert_array_equal(jax.jit(fronts)(points), rank)
    found = jax.jit(crowding)(points, jnp.asarray(rank, jnp.int32))
    np.testing.assert_allclose(found, oracle_crowding(points, rank), rtol=1e-4, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(POINTS, st.permutations(range(N)))
def test_fronts_do_not_depend_on_the_order_and_nobody_ranks_before_who_dominates_him(points, order):
    front, order = np.asarray(jax.jit(fronts)(points)), np.array(order)
    np.testing.assert_array_equal(jax.jit(fronts)(points[order]), front[order])
    ranks = np.asarray(jax.jit(ranking)(points))
    assert sorted(ranks) == list(range(N))
    place = np.argsort(ranks)
    below, above = np.nonzero(np.asarray(jax.jit(dominated_by)(points)))
    assert (place[above] < place[below]).all()


def test_a_front_by_hand():
    # (1, 5), (2, 4), (4, 3), (5, 1) dominate each other not; (2, 3) and (4, 1) are dominated, (0, 0) by all
    points = np.array([[0, 0], [4, 3], [2, 3], [1, 5], [5, 1], [2, 4], [4, 1]], np.float32)
    assert fronts(points).tolist() == [2, 0, 1, 0, 0, 0, 1]
    # (2, 4): (4 − 1) / 4 + (5 − 3) / 4; (4, 3): (5 − 2) / 4 + (4 − 1) / 4; the others are at an end
    assert crowding(points, fronts(points)).tolist() == [np.inf, 1.5, np.inf, np.inf, np.inf, 1.25, np.inf]
    assert ranking(points).tolist() == [3, 4, 1, 5, 2, 6, 0]


@pytest.mark.parametrize("n", [1, 2])
def test_the_few_are_all_at_the_ends(n):
    points = np.ones((n, 2), np.float32)
    assert crowding(points, fronts(points)).tolist() == [np.inf] * n
    assert ranking(points).tolist() == list(range(n))
