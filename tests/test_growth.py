"""Positions that have no connection, found without a mask: exactly as many, each as likely, in order."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sparse_jax.sparse import growth
from sparse_jax.sparse.growth import (
    Positions,
    best_absent,
    best_absent_by_output,
    draw_absent,
    find,
    gradient_scores,
    random_scores,
    sort_positions,
    uniform_below,
)
from sparse_jax.sparse.links import make_links
from tests import oracle

SHAPE = (4, 5)
HUGE = (70_000, 40_000)  # 2.8e9 positions


def links_at(flat, shape, capacity):
    """Links at these positions, row-major."""
    flat = np.sort(np.asarray(flat, np.int64))
    sides = (np.pad(side, (0, capacity - flat.size)).astype(np.int32) for side in np.divmod(flat, shape[1]))
    return make_links(*sides, jnp.int32(flat.size), shape)


def flat_of(at, shape):
    """int64, the used positions, row-major; asserts that the others are behind them and say so."""
    inputs, outputs = (np.asarray(side, np.int64) for side in at)
    used = int((inputs < shape[0]).sum())
    assert (inputs[used:] == shape[0]).all()
    assert (outputs[used:] == shape[1]).all()
    return inputs[:used] * shape[1] + outputs[:used]


@pytest.mark.parametrize("shape", [SHAPE, HUGE])
def test_positions_are_sorted_and_found(shape):
    rng = np.random.default_rng(0)
    flat = rng.choice(shape[0] * shape[1], 12, replace=False)
    links = links_at(flat[:8], shape, 10)
    at = sort_positions(Positions(*(jnp.asarray(side, jnp.int32) for side in np.divmod(flat, shape[1]))), shape)
    np.testing.assert_array_equal(flat_of(at, shape), np.sort(flat))
    before, there = find(links, at)
    np.testing.assert_array_equal(before, np.searchsorted(np.sort(flat[:8]), np.sort(flat)))
    np.testing.assert_array_equal(there, np.isin(np.sort(flat), flat[:8]))


@pytest.mark.parametrize("shape", [(30, 20), HUGE])
def test_what_is_drawn_is_absent_distinct_and_sorted(shape):
    rng, draw = np.random.default_rng(1), jax.jit(partial(draw_absent, most=60, shape=shape, outputs=None))
    old = rng.choice(shape[0] * shape[1], 200, replace=False)
    links = links_at(old, shape, 210)
    excluded = np.arange(210) % 2 == 0
    forbidden = np.sort(old)[::2]
    for count in (0, 1, 37, 60):
        flat = flat_of(draw(jax.random.key(count), links, excluded, jnp.int32(count)), shape)
        assert flat.size == count
        assert (np.diff(flat) > 0).all()
        assert not np.isin(flat, forbidden).any()


def test_all_that_is_left_can_be_drawn():
    links = links_at(range(18), SHAPE, 18)
    at = draw_absent(jax.random.key(0), links, jnp.ones(18, bool), jnp.int32(2), 5, SHAPE, None)
    np.testing.assert_array_equal(flat_of(at, SHAPE), [18, 19])


def test_inputs_are_drawn_for_given_outputs():
    links = links_at([0, 6], SHAPE, 2)
    outputs = jnp.asarray([0, 0, 1, 4, 4, 4], jnp.int32)
    at = draw_absent(jax.random.key(3), links, jnp.ones(2, bool), jnp.int32(6), 6, SHAPE, outputs)
    flat = flat_of(at, SHAPE)
    assert flat.size == 6
    np.testing.assert_array_equal(np.bincount(flat % 5, minlength=5), [2, 1, 0, 0, 3])
    assert not np.isin(flat, [0, 6]).any()


def _by_rejection(key, links, taken):
    return draw_absent(key, links, jnp.ones(links.capacity, bool), jnp.int32(2), 3, (2, 3), None)


def _by_ranks(key, links, taken):
    return best_absent(random_scores(key, 3), jnp.uint32, taken, jnp.int32(2), 3, (2, 3), 4)


@pytest.mark.parametrize(("draw", "block"), [(_by_rejection, 2**20), (_by_ranks, 2**20), (_by_ranks, 3)])
def test_every_set_of_absent_positions_is_as_likely(draw, block, monkeypatch):
    """4 of 6 positions are absent: the 6 pairs of them in 6,000 draws, by χ²; also where each input is a block."""
    monkeypatch.setattr(growth, "LEAST_BLOCK", block)
    links, taken = links_at([1, 4], (2, 3), 2), Positions(jnp.asarray([0, 1]), jnp.asarray([1, 1]))
    keys = jax.random.split(jax.random.key(0), 6000)
    at = jax.jit(jax.vmap(lambda key: draw(key, links, taken)))(keys)
    flat = np.asarray(at.inputs)[:, :2] * 3 + np.asarray(at.outputs)[:, :2]
    sets, counts = np.unique(flat, axis=0, return_counts=True)
    np.testing.assert_array_equal(sets, list(itertools.combinations([0, 2, 3, 5], 2)))
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("span", [2, 10, 2**16 + 1, 333_000, 3 * 2**29, 2**31 - 1])
def test_integers_are_uniform(span):
    """Three times 2^29 goes two and two thirds times into 2^32: a remainder would favour its first two thirds."""
    drawn = np.asarray(uniform_below(jax.random.key(0), 30_000, span))
    assert ((drawn >= 0) & (drawn < span)).all()
    assert not uniform_below(jax.random.key(0), 5, 1).any()
    thirds = np.bincount(3 * drawn.astype(np.int64) // span, minlength=3)
    edges = np.arange(4) * span
    sizes = np.diff(-(-edges // 3))
    assert stats.chisquare(thirds[sizes > 0], 30_000 * sizes[sizes > 0] / span).pvalue > 1e-3


@pytest.mark.parametrize("block", [1, 7, 15, 29, 2**20])
def test_the_largest_gradients_are_found_block_by_block(block, monkeypatch):
    """Small integers, so that products are exact and many are equal: ties go to the lower position."""
    monkeypatch.setattr(growth, "LEAST_BLOCK", block)
    rng, shape = np.random.default_rng(0), (9, 7)
    for count in (0, 1, 5, 12):
        x, d = (rng.integers(-2, 3, (side, 3)).astype(np.float32) for side in shape)
        mask = rng.random(shape) < 0.3
        taken = Positions(*(jnp.asarray(side, jnp.int32) for side in np.nonzero(mask)))
        scores = gradient_scores(jnp.asarray(x), jnp.asarray(d))
        at = best_absent(scores, jnp.float32, taken, jnp.int32(count), 12, shape, 5)
        expected = oracle.top_k(np.abs(x @ d.T), count, ~mask)
        np.testing.assert_array_equal(flat_of(at, shape), np.flatnonzero(expected))


@pytest.mark.parametrize("block", [1, 11, 15, 29, 2**20])
def test_the_largest_gradients_of_every_output_are_found_block_by_block(block, monkeypatch):
    monkeypatch.setattr(growth, "LEAST_BLOCK", block)
    rng, shape = np.random.default_rng(0), (9, 7)
    x, d = (rng.integers(-2, 3, (side, 3)).astype(np.float32) for side in shape)
    mask, counts = rng.random(shape) < 0.3, rng.integers(0, 3, shape[1])
    taken = Positions(*(jnp.asarray(side, jnp.int32) for side in np.nonzero(mask)))
    scores = gradient_scores(jnp.asarray(d), jnp.asarray(x))
    at = best_absent_by_output(scores, taken, jnp.asarray(counts, jnp.int32), 20, shape, 5)
    gradient = np.abs(x @ d.T)
    columns = [oracle.top_k(gradient[:, j], int(n), ~mask[:, j]) for j, n in enumerate(counts)]
    np.testing.assert_array_equal(flat_of(at, shape), np.flatnonzero(np.stack(columns, axis=1)))
