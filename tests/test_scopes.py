"""Who competes with whom in a drop, and where what it frees may grow, against rankings by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_jax.topology.evolution import evolve, start_topology
from sparse_jax.topology.moves import choose, grow
from tests import oracle
from tests.layers import OUTPUT, SHAPES, course_at, draw_weights, follow, make_rule, random_mask

START = {"a/kernel": 40, "b/kernel": 20, OUTPUT: 9}
TOTAL = sum(START.values())
DENSE = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}


def joined(arrays):
    """The arrays of all layers as one."""
    return np.concatenate([np.asarray(arrays[name]).ravel() for name in sorted(SHAPES)])


def of_different_size(rng, name, shape):
    """Weights of which the last layer has the largest."""
    return draw_weights(rng, name, shape) * {"a/kernel": 1, "b/kernel": 2, OUTPUT: 3}[name]


def survivors_of(mask, weight, fraction, per_sign):
    return oracle.drop(mask[None], weight[None], fraction, per_sign)[0]


@pytest.mark.parametrize("method", ["set_magnitude", "set", "rigl"])
def test_a_global_update_ranks_the_connections_of_all_layers_together(method):
    between = 0
    for update in follow(make_rule(method, scope="global"), 8, 3, SHAPES, START, START, of_different_size):
        before, after, weight = (joined(x) for x in (update.before.masks, update.after.masks, update.weights))
        survivors = survivors_of(before, weight, 0.3, per_sign=method == "set")
        np.testing.assert_array_equal(joined(update.survivors), survivors)
        assert after.sum() == TOTAL
        assert not (survivors & ~after).any()
        assert update.moved == TOTAL - survivors.sum()
        if method == "rigl":
            np.testing.assert_array_equal(after, oracle.grow(survivors, np.abs(joined(update.gradients)), TOTAL))
        between += any(update.after.masks[name].sum() != START[name] for name in SHAPES)
    assert between


def test_global_pruning_keeps_the_largest_of_all_layers():
    updates = 4
    for update in follow(make_rule("gmp", scope="global"), 6, updates, SHAPES, DENSE, START, of_different_size):
        left = (1 - update.number / updates) ** 3
        count = sum(START[name] + round((DENSE[name] - START[name]) * left) for name in SHAPES)
        before, weight = joined(update.before.masks), np.abs(joined(update.weights))
        np.testing.assert_array_equal(joined(update.after.masks), oracle.top_k(weight, count, before))
        assert left or count == TOTAL
        assert left or update.after.masks[OUTPUT].sum() > START[OUTPUT]
        assert left or update.after.masks["a/kernel"].sum() < START["a/kernel"]


def test_a_global_choice_is_the_best_of_all_layers():
    rng = np.random.default_rng(0)
    chosen = jax.jit(lambda scores, counts: choose(make_rule("set", scope="global"), scores, counts))
    for _ in range(10):
        scores = {name: rng.integers(-5, 6, shape).astype(np.float32) for name, shape in SHAPES.items()}
        counts = {name: np.int32(rng.integers(n + 1)) for name, n in DENSE.items()}
        masks = chosen(scores, counts)
        assert {name: mask.shape for name, mask in masks.items()} == SHAPES
        everywhere = np.ones(sum(DENSE.values()), bool)
        np.testing.assert_array_equal(joined(masks), oracle.top_k(joined(scores), sum(counts.values()), everywhere))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_what_was_dropped_does_not_grow_while_there_is_another_place(scope):
    rule = make_rule("set_magnitude", scope=scope, regrow_dropped=False)
    for update in follow(rule, 10, 3, SHAPES, START, START):
        before, survivors, after = update.before.masks, update.survivors, update.after.masks
        if scope == "global":
            before, survivors, after = ({"all": joined(masks)} for masks in (before, survivors, after))
        for name, mask in after.items():
            dropped, other = before[name] & ~survivors[name], ~before[name]
            assert 0 < dropped.sum() <= other.sum()
            assert not (dropped & mask).any()
            assert (other & mask).sum() == dropped.sum()


@pytest.mark.parametrize("method", ["granet", "mest_soft"])
def test_what_was_pruned_to_a_count_does_not_grow_while_there_is_another_place(method):
    rule = make_rule(method, regrow_dropped=False, drop_score="magnitude")
    for update in follow(rule, 11, 3, SHAPES, START, {name: count - 2 for name, count in START.items()}):
        for name, mask in update.after.masks.items():
            dropped, other = update.before.masks[name] & ~update.survivors[name], ~update.before.masks[name]
            assert dropped.sum()
            assert not (dropped & mask).any() or not (other & ~mask).any()


def test_what_was_dropped_grows_where_there_is_no_other_place():
    # Of 9 inputs every neuron has 7, of 5 it has 4: who loses more than its 2 or 1 others takes some back
    shapes, start = {"a/kernel": (9, 8), OUTPUT: (5, 4)}, {"a/kernel": 56, OUTPUT: 16}
    rule, back = make_rule("rigl", "fan_in", regrow_dropped=False), 0
    for update in follow(rule, 20, 3, shapes, start, start):
        for name, mask in update.after.masks.items():
            before, stay, gradient = (x[name] for x in (update.before.masks, update.survivors, update.gradients))
            for j in range(mask.shape[1]):
                dropped, other = before[:, j] & ~stay[:, j], ~before[:, j]
                taken, again = int((mask[:, j] & other).sum()), mask[:, j] & dropped
                assert taken == min(dropped.sum(), other.sum())
                assert again.sum() == dropped.sum() - taken
                np.testing.assert_array_equal(again, oracle.top_k(np.abs(gradient[:, j]), int(again.sum()), dropped))
                back += again.sum()
    assert back


def test_dense_layers_that_share_their_growth_take_back_what_they_dropped():
    rule = make_rule("set_magnitude", scope="survivors", regrow_dropped=False)
    shapes, dense = {"a/kernel": (5, 4), OUTPUT: (4, 3)}, {"a/kernel": 20, OUTPUT: 12}
    for update in follow(rule, 2, 2, shapes, dense, dense):
        assert all(mask.all() for mask in update.after.masks.values())
        assert update.moved == 6 + 3  # ⌊0.3 · 20⌋ and ⌊0.3 · 12⌋


def test_what_comes_last_by_hand():
    # Five places, the first survives and the next two come last; two grow into the others, one is left for the best
    survivors, last = jnp.array([[True, False, False, False, False]]), jnp.array([[False, True, True, False, False]])
    score, everywhere = jnp.array([[9.0, 7.0, 8.0, 1.0, 2.0]]), jnp.ones((1, 5), bool)
    grown = jax.jit(grow)
    rows = [grown(survivors, score, jnp.array([n]), everywhere, last)[0].astype(int).tolist() for n in (1, 2, 3, 4, 5)]
    assert rows == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 1], [1, 0, 0, 1, 1], [1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    places = jnp.array([[True, True, True, False, False]])
    assert grown(survivors, score, jnp.array([5]), places, last)[0].astype(int).tolist() == [1, 1, 1, 0, 0]
    assert grown(survivors, score, jnp.array([2]), everywhere)[0].astype(int).tolist() == [1, 0, 1, 0, 0]


@pytest.mark.parametrize(("method", "scope"), [("set", "layer"), ("set_magnitude", "global")])
def test_no_more_is_dropped_than_there_is_room_for(method, scope):
    @jax.jit
    def survivors(fraction, masks, weights):
        rule = make_rule(method, drop_fraction=fraction, scope=scope)
        topology, none = start_topology(rule, masks, weights), dict.fromkeys(masks, jnp.int32(0))
        args = course_at(0, 1), jnp.float32(0), none, none, topology, weights, None
        new, info = evolve(rule, jax.random.key(0), *args)
        return info.survivors, new.masks

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10**6), st.floats(0, 1, width=32))
    def check(seed, fraction):
        rng = np.random.default_rng(seed)
        rule = make_rule(method)
        counts = {name: rng.integers(n // 2, n + 1) for name, n in DENSE.items()}
        masks = {name: random_mask(rng, rule.pattern, shape, counts[name]) for name, shape in SHAPES.items()}
        weights = {n: np.where(m, rng.integers(-4, 5, m.shape), 0).astype(np.float32) for n, m in masks.items()}
        kept, after = survivors(np.float32(fraction), masks, weights)
        arrays = masks, kept, after, weights
        pools = [[np.asarray(x[name]).ravel() for x in arrays] for name in SHAPES]
        for mask, stay, new, weight in pools if scope == "layer" else [[joined(x) for x in arrays]]:
            dropped = int(mask.sum() - stay.sum())
            assert dropped <= (~mask).sum()
            assert new.sum() == mask.sum()
            np.testing.assert_array_equal(stay, survivors_of(mask, weight, fraction, method == "set"))

    check()
