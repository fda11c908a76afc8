"""One update of a layer on its connections, against plain NumPy on masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.sparse.connectivity import connectivity
from sparse_jax.sparse.evolution import carried, evolve, in_use, merge, most_grown
from sparse_jax.sparse.growth import Positions, Sensitivity
from sparse_jax.sparse.initial import at_slots, first_links
from sparse_jax.sparse.links import make_links
from sparse_jax.topology import paths
from sparse_jax.topology.criteria import Signals
from tests import oracle
from tests.layers import course_at, make_rule
from tests.linked import scattered
from tests.test_growth import links_at

CASES = [
    ("set", "none", (9, 8), 20), ("set", "none", (6, 5), 30), ("set_magnitude", "none", (40, 30), 100),
    ("set_magnitude", "fan_in", (9, 8), 24), ("set_magnitude", "fan_in", (40, 30), 90), ("rigl", "none", (40, 30), 100),
    ("rigl", "fan_in", (9, 8), 24), ("deepr", "none", (9, 8), 20), ("gmp", "none", (9, 8), 20),
]  # fmt: skip


@functools.cache
def programs(method, structure, shape, count, final):
    """(rule, first links of a key, update of (key, links, weights, x, d))."""
    rule, family = make_rule(method, structure), "fan_in" if structure == "fan_in" else "random"

    def update(key, links, weight, x, d):
        signals = Signals(weight, in_use(links), None, None, None, jnp.ones(count, bool), rule.rates)
        counts, most = (jnp.int32(final),) * 2, most_grown(rule, count, 0.3)
        sensitivity = Sensitivity(x, d) if "gradient" in rule.grow.needs else None
        return evolve(rule, key, course_at(1, 3), *counts, links, signals, sensitivity, shape, count, most)

    begin = functools.partial(first_links, family, shape=shape, count=jnp.int32(count), slots=count)
    return rule, jax.jit(begin), jax.jit(update)


def updated(method, structure, shape, count, seed):
    """(rule, links before, their weights, x, d, move, final count) of one update."""
    final = count // 2 if method == "gmp" else count
    (rule, begin, update), rng = programs(method, structure, shape, count, final), np.random.default_rng(seed)
    weight = np.round(4 * rng.standard_normal(count)).astype(np.float32) / 4  # many are equal, some are zero
    x, d = (rng.integers(-3, 4, (side, 3)).astype(np.float32) for side in shape)
    links = begin(jax.random.key(seed))
    return rule, links, weight, x, d, update(jax.random.key(seed + 100), links, weight, x, d), final


@pytest.mark.parametrize(("method", "structure", "shape", "count"), CASES)
def test_an_update_does_what_the_method_says(method, structure, shape, count):
    for seed in range(3):
        rule, links, weight, x, d, move, final = updated(method, structure, shape, count, seed)
        before, old = scattered(links, np.ones(count, bool)), scattered(links, weight)
        after = scattered(move.links, in_use(move.links))
        kept = scattered(move.links, np.asarray(move.sources) >= 0)
        survivors = {
            "fraction": oracle.drop(before, old, 0.3, per_sign=method == "set"),
            "below_zero": before & (old >= 0),
            "none": oracle.top_k(np.abs(old), final, before),
        }[rule.remove]
        np.testing.assert_array_equal(kept, survivors)
        assert after.sum() == final
        assert (after | ~survivors).all()
        assert move.moved == before.sum() - survivors.sum()
        np.testing.assert_array_equal(scattered(move.links, carried(move.sources, weight)), np.where(kept, old, 0))
        if structure == "fan_in":
            np.testing.assert_array_equal(after.sum(0), count // shape[1])
        if method == "rigl":
            gradient, missing = np.abs(x @ d.T), final - survivors.sum()
            grown = oracle.top_k(gradient, missing, ~survivors)
            if structure == "fan_in":
                each = count // shape[1] - survivors.sum(0)
                columns = [oracle.top_k(gradient[:, j], int(n), ~survivors[:, j]) for j, n in enumerate(each)]
                grown = np.stack(columns, axis=1)
            np.testing.assert_array_equal(after & ~survivors, grown)


def test_connections_are_merged_in_order():
    """(0, 1), (1, 2), (3, 0) without the second, with (0, 4) and (3, 4): by input, then by output."""
    links, new = links_at([1, 7, 15], (4, 5), 4), Positions(jnp.asarray([0, 3, 4]), jnp.asarray([4, 4, 5]))
    merged, sources = merge(links, jnp.asarray([True, False, True, False]), new, (4, 5))
    np.testing.assert_array_equal(merged.outputs, [1, 4, 0, 4])
    np.testing.assert_array_equal(merged.input_starts, [0, 2, 2, 2, 4])
    np.testing.assert_array_equal(sources, [0, -1, 2, -1])
    np.testing.assert_array_equal(merged.inputs, [3, 0, 0, 3])
    np.testing.assert_array_equal(merged.output_starts, [0, 1, 2, 2, 2, 4])
    np.testing.assert_array_equal(merged.slots, [2, 0, 1, 3])


def test_layers_of_more_positions_than_an_integer_holds_evolve_exactly():
    _, links, weight, _, _, move, _ = updated("set", "none", (70_000, 40_000), 3000, 0)
    flat = [
        np.repeat(np.arange(70_000), np.diff(of.input_starts)).astype(np.int64) * 40_000 + np.asarray(of.outputs)
        for of in (links, move.links)
    ]
    assert (np.diff(flat[1]) > 0).all()
    assert flat[1].size == 3000
    kept = np.asarray(move.sources) >= 0
    np.testing.assert_array_equal(flat[1][kept], flat[0][np.asarray(move.sources)[kept]])
    positive = ~(weight < 0)
    dropped = [np.floor(np.float32(0.3) * np.float32(n)) for n in (positive.sum(), (~positive).sum())]
    assert (~kept).sum() == sum(dropped)
    assert not np.isin(flat[1][~kept], flat[1][kept]).any()


@pytest.mark.parametrize("folded", [False, True])
def test_connectivity_is_that_of_the_masks(folded):
    """Dense layers, and a convolution of 3 × 3 to 4 channels before 8 flattened inputs."""
    rng, measured = np.random.default_rng(0), jax.jit(connectivity)
    for _ in range(10):
        first = rng.random((3, 3, 2, 4)) < 0.03 if folded else rng.random((6, 8)) < 0.15
        masks = [first, rng.random((8, 7)) < 0.15, rng.random((7, 5)) < 0.2]
        layers = [first, *(links_at(np.flatnonzero(mask), mask.shape, 40) for mask in masks[1:])]
        assert [int(n) for n in measured(layers)] == [int(n) for n in paths.connectivity(masks)]


@pytest.mark.parametrize(("family", "shape"), [("random", (9, 8)), ("random", (40, 30)), ("fan_in", (40, 10))])
def test_the_first_connections_are_as_many_as_asked_for_in_as_many_slots(family, shape):
    for count in (0, 10, 20):
        links = first_links(family, jax.random.key(count), shape, jnp.int32(count), 20)
        assert (links.input_starts[-1], links.capacity) == (count, 20)
        mask = scattered(links, in_use(links))
        assert mask.sum() == count
        assert family == "random" or set(mask.sum(0)) == {count // 10}


def test_connections_of_a_file_lie_in_more_slots():
    pairs = jnp.asarray([[0, 0, 3], [1, 4, 0]], jnp.int32)
    links, expected = make_links(*at_slots(pairs, 5), jnp.int32(3), (4, 5)), links_at([1, 4, 15], (4, 5), 5)
    jax.tree.map(np.testing.assert_array_equal, links, expected)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9, 1.0])
def test_there_is_room_for_all_that_an_update_drops(share):
    """Of every group float32 drops ⌊s n⌋, which may be more than that of numbers without rounding."""
    rng, rule = np.random.default_rng(0), make_rule("set")
    for count in (*rng.integers(1, 2**31, 20_000), *range(1, 300), 38_707_646, 61_425_246):
        positive = int(rng.integers(0, count + 1))
        dropped = sum(int(np.floor(np.float32(share) * np.float32(n))) for n in (positive, int(count) - positive))
        assert min(dropped, count) <= most_grown(rule, int(count), share) <= min(count, share * count * (1 + 1e-6) + 3)
