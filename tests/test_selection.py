"""Exact selection against a sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparse_jax.topology.selection import ordered_bits, top_k
from tests import oracle

SHAPE = (5, 7)
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, 3e38]), st.floats(-10, 10, width=32)
)
select = jax.jit(top_k)


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float32, SHAPE, elements=FLOATS),
    st.integers(-2, 40),
    hnp.arrays(bool, SHAPE),
)
def test_equals_a_stable_sort(score, k, eligible):
    np.testing.assert_array_equal(select(score, k, eligible), oracle.top_k(score, k, eligible))


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.uint32, SHAPE, elements=st.sampled_from([0, 1, 2**31, 2**32 - 1])),
    st.integers(0, 35),
    hnp.arrays(bool, SHAPE),
)
def test_integers_are_their_own_keys(score, k, eligible):
    np.testing.assert_array_equal(select(score, k, eligible), oracle.top_k(score, k, eligible))


@pytest.mark.parametrize("k", [0, 1, 17, 35, 99])
def test_counts_are_exact_whatever_the_scores(k):
    for value in (jnp.nan, jnp.inf, -jnp.inf, 0.0):
        assert select(jnp.full(SHAPE, value), k, jnp.ones(SHAPE, bool)).sum() == min(k, 35)


def test_nan_is_beyond_infinity():
    bits = ordered_bits(jnp.array([-jnp.inf, -1.0, -0.0, 0.0, 1.0, jnp.inf, jnp.nan]))
    assert (jnp.diff(bits.astype(jnp.float32)) >= 0).all()
    assert bits[2] == bits[3]
    assert bits[6] > bits[5]


def test_counts_may_differ_by_lane():
    score = jax.random.normal(jax.random.key(0), (4, *SHAPE))
    counts = jnp.array([0, 3, 20, 35])
    selected = jax.vmap(lambda s, k: top_k(s, k, jnp.ones(SHAPE, bool)))(score, counts)
    np.testing.assert_array_equal(selected.sum((1, 2)), counts)
    for lane in range(4):
        np.testing.assert_array_equal(selected[lane], select(score[lane], counts[lane], jnp.ones(SHAPE, bool)))
