"""One topology update against the oracle, and the randomness of growth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparse_jax.recipes import RECIPES
from sparse_jax.topology.counts import target_counts
from sparse_jax.topology.evolution import evolve, start_topology
from sparse_jax.topology.initial import random_masks
from sparse_jax.topology.masks import apply_masks, mask_tree, select
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.moves import drop, grow
from sparse_jax.topology.schedules import DENSITY_SCHEDULES, DROP_SCHEDULES, Course
from tests import oracle

SHAPES = {"a/kernel": (9, 8), "b/kernel": (8, 5)}
EVOLVING = ("set", "set_magnitude", "rigl", "itop_random", "itop_gradient")


def make_rule(method, fraction):
    """The rule of a method at a drop fraction, with the choices of its recipe."""
    recipe = {name: value for name, value in RECIPES[method].items() if name in Settings._fields}
    chosen = {name: value for name, value in recipe.items() if name not in ("structure", "drop_schedule")}
    rates = {"drop_fraction": fraction, "shrink_rate": jnp.float32(1)}
    return METHODS[method](Settings("output/kernel", rates, **chosen))


def course(progress, left=1):
    return Course(jnp.float32(progress), jnp.float32(progress), jnp.int32(left))


def update(rule, key, counts, topology, weights, gradients=None):
    return evolve(rule, key, course(0), jnp.float32(0), counts, counts, topology, weights, gradients)


def run_update(method, fraction, key, counts, masks, weights, gradients=None):
    rule = make_rule(method, fraction)
    return update(rule, key, counts, start_topology(rule, masks, weights), weights, gradients)


evolve_jit = jax.jit(run_update, static_argnames="method")


@jax.jit
def make_layers(seed, density, zeros):
    """Random masks, weights with ties and exact zeros, and gradients."""
    keys = jax.random.split(jax.random.key(seed), 3)
    counts = {name: jnp.round(density * np.prod(shape)).astype(jnp.int32) for name, shape in SHAPES.items()}
    masks = random_masks(keys[0], SHAPES, counts)

    def draw(key, shape):
        values = jnp.round(jax.random.normal(key, shape), 1)
        return jnp.where(jax.random.uniform(key, shape) < zeros, 0, values)

    weights = {name: jnp.where(masks[name], draw(keys[1], shape), 0) for name, shape in SHAPES.items()}
    gradients = {name: jax.random.normal(keys[2], shape) for name, shape in SHAPES.items()}
    return counts, masks, weights, gradients


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0.03, 1),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.floats(0, 1, width=32),
    st.sampled_from(EVOLVING),
)
def test_an_update_equals_the_oracle(seed, density, zeros, fraction, method):
    counts, masks, weights, gradients = make_layers(seed, density, zeros)
    args = jax.random.key(seed), counts, masks, weights, gradients
    new, info = evolve_jit(method, jnp.float32(fraction), *args)
    moved = 0
    for name in SHAPES:
        before, weight = np.asarray(masks[name]), np.asarray(weights[name])
        survivors = oracle.drop(before, weight, fraction, per_sign=method == "set")
        np.testing.assert_array_equal(info.survivors[name], survivors)
        if method in ("rigl", "itop_gradient"):
            gradient = np.abs(np.asarray(gradients[name]))
            np.testing.assert_array_equal(new.masks[name], oracle.grow(survivors, gradient, int(counts[name])))
        assert new.masks[name].sum() == counts[name] == before.sum()
        assert not (info.survivors[name] & ~new.masks[name]).any()
        moved += before.sum() - survivors.sum()
    assert info.moved == moved


def test_a_count_above_the_present_one_grows_the_layer():
    mask = jnp.zeros(SHAPES["a/kernel"], bool).at[0].set(True)
    score = jnp.arange(mask.size, dtype=jnp.float32).reshape(mask.shape)
    survivors = drop((mask,), score, jnp.float32(0.5))
    new = grow(survivors.reshape(1, -1), score.reshape(1, -1), jnp.int32(20)[None], jnp.ones((1, mask.size), bool))
    assert survivors.sum() == 4
    assert new.sum() == 20
    assert new.ravel()[-16:].all()


def test_a_dense_layer_moves_nothing():
    counts, masks, weights, gradients = make_layers(0, 1.0, 0.5)
    for method in EVOLVING:
        args = jax.random.key(0), counts, masks, weights, gradients
        new, info = evolve_jit(method, jnp.float32(0.9), *args)
        assert info.moved == 0
        assert all(new.masks[name].all() and info.survivors[name].all() for name in SHAPES)


def test_first_masks_are_uniform():
    counts = {name: jnp.int32(7) for name in SHAPES}
    draw = jax.jit(jax.vmap(lambda key: random_masks(key, SHAPES, counts)))
    masks = draw(jax.random.split(jax.random.key(1), 4000))
    for name in SHAPES:
        np.testing.assert_array_equal(masks[name].sum((1, 2)), 7)
        # Without replacement the cells vary less than multinomial counts: rescaled by (1 − density).
        total = np.asarray(masks[name].sum(0), float).ravel()
        statistic = ((total - total.mean()) ** 2).sum() / total.mean() / (1 - 7 / total.size)
        assert 1e-4 < stats.chi2.sf(statistic, total.size - 1) < 1 - 1e-4


@pytest.mark.parametrize("method", ["set", "set_magnitude"])
def test_growth_is_uniform_over_everything_but_the_survivors(method):
    counts, masks, weights, _ = make_layers(3, 0.3, 0.0)

    def one(key):
        return run_update(method, jnp.float32(0.3), key, counts, masks, weights)

    new, info = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 4000))
    for name in SHAPES:
        survivors = np.asarray(info.survivors[name][0])
        assert (np.asarray(info.survivors[name]) == survivors).all()
        grown = np.asarray(new.masks[name].sum(0), float)[~survivors]
        share = (counts[name] - survivors.sum()) / grown.size
        statistic = ((grown - grown.mean()) ** 2).sum() / grown.mean() / (1 - float(share))
        assert 1e-4 < stats.chi2.sf(statistic, grown.size - 1) < 1 - 1e-4


def test_layers_of_one_shape_do_not_share_their_draws():
    shapes = {"a/kernel": (20, 20), "b/kernel": (20, 20)}
    masks = random_masks(jax.random.key(0), shapes, {name: jnp.int32(100) for name in shapes})
    assert (masks["a/kernel"] != masks["b/kernel"]).any()


@pytest.mark.parametrize("name", DROP_SCHEDULES)
def test_drop_schedules_fall_from_one_within_bounds(name):
    factor = DROP_SCHEDULES[name](jnp.linspace(0, 1, 101), {"drop_power": jnp.float32(3)})
    assert factor[0] == 1
    assert (jnp.diff(factor) <= 1e-6).all()
    assert (factor >= -1e-6).all()
    if name != "constant":
        middle = 1 / 8 if name == "inverse_power" else 1 / 2
        np.testing.assert_allclose(factor[jnp.array([50, 100])], [middle, 0], atol=1e-6)


@pytest.mark.parametrize("name", DENSITY_SCHEDULES)
def test_density_schedules_end_at_the_final_count_within_bounds(name):
    """Of ten updates; in the middle (1 − 1/2)³, 1/2, 1/2, or √r as a share of what lies between r = 1/4 and 1."""
    share = [float(DENSITY_SCHEDULES[name](course(k / 10, 10 - k), jnp.float32(0.25))) for k in range(1, 11)]
    assert share[-1] == pytest.approx(0, abs=1e-6)
    assert all(0 <= value <= 1 for value in share)
    middle = {"cubic": 1 / 8, "linear": 1 / 2, "sigmoid": 1 / 2, "levels": (1 / 2 - 1 / 4) / (3 / 4), "constant": 1}
    if name == "cyclic":
        assert share == [1, 0] * 5
    else:
        assert share[4] == pytest.approx(middle[name], abs=1e-6)
        assert share == sorted(share, reverse=True)


def counts_after(method, progress, accuracy, best, start, final, present):
    mask = jnp.arange(1000) < present
    rule = make_rule(method, jnp.float32(0.3))
    topology = start_topology(rule, {"layer": mask}, {"layer": mask.astype(jnp.float32)})
    topology = topology._replace(accuracy=jnp.float32(best))
    counts = ({"layer": jnp.int32(start)}, {"layer": jnp.int32(final)})
    return int(target_counts(rule, course(progress), jnp.float32(accuracy), *counts, topology)[1]["layer"])


def test_a_pruning_schedule_is_exact_at_its_ends_and_in_the_middle():
    for method in ("gmp", "granet"):
        counts = [counts_after(method, course, 0, -1, 900, 100, 500) for course in (0, 0.5, 1)]
        assert counts == [900, 100 + 800 // 8, 100]


def test_accset_shrinks_by_the_gain_in_accuracy_down_to_its_floor():
    # n = 500, shrink rate 1: n − 500 (0.75 − 0.5) = 375; no gain without an earlier accuracy, or below it
    assert counts_after("accset", 0, 0.75, 0.5, 900, 100, 500) == 375
    assert counts_after("accset", 0, 0.75, -1, 900, 100, 500) == 500
    assert counts_after("accset", 0, 0.25, 0.5, 900, 100, 500) == 500
    assert counts_after("accset", 0, 0.75, 0.5, 900, 450, 500) == 450
    assert counts_after("accset_level", 0, 0.75, -1, 900, 100, 500) == 125


def test_the_unexplored_are_grown_first():
    counts, masks, weights, _ = make_layers(5, 0.3, 0.0)
    explored = {name: mask.at[:, :2].set(True) for name, mask in masks.items()}
    rule = make_rule("itop_unexplored", jnp.float32(0.5))
    topology = start_topology(rule, masks, weights)._replace(explored=explored)
    new, info = update(rule, jax.random.key(0), counts, topology, weights)
    for name in SHAPES:
        grown = new.masks[name] & ~info.survivors[name]
        assert grown.sum() > 0
        assert not (grown & explored[name]).any()
        np.testing.assert_array_equal(new.explored[name], explored[name] | new.masks[name])


def test_masks_apply_to_their_leaves_only():
    params = {"a": {"kernel": jnp.full((2, 2), jnp.nan), "bias": jnp.ones(2)}, "activation_0": {"slope": jnp.ones(2)}}
    masks = {"a/kernel": jnp.array([[True, False], [False, False]])}
    masked = apply_masks(params, masks)
    assert jnp.isnan(masked["a"]["kernel"][0, 0])
    assert (masked["a"]["kernel"].ravel()[1:] == 0).all()
    assert (masked["a"]["bias"] == 1).all()
    assert mask_tree(params, masks)["activation_0"]["slope"] is True
    assert list(select(params, masks)) == ["a/kernel"]
