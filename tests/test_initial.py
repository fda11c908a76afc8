"""Laws of the first masks: over every family, then what each family promises about degrees."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from sparse_jax.topology import random_graphs
from sparse_jax.topology.initial import (
    INITIAL,
    InitialSettings,
    correlation_masks,
    from_scores,
    from_scores_globally,
)

SHAPES = {"b/kernel": (9, 8), "a/kernel": (2, 1, 4, 6), "c/kernel": (9, 8)}
SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
SETTINGS = InitialSettings(rewiring=jnp.float32(0.3), exponent=jnp.float32(2.5))
LANES = 73
UNIFORM = {  # free cells of the 2 × 2 × 4 × 4 kernel of test_every_cell_is_as_likely, once what is fixed is fixed
    random_graphs.uniform: 64 - 1,  # the count
    random_graphs.bernoulli: 64,
    random_graphs.fan_in: 64 - 4,  # the count of every output
    random_graphs.fan_out: 64 - 4,  # ... of every input channel
    random_graphs.expander: 64 - 16 - 4 + 1,  # ... of every output and every cell
    random_graphs.small_world: 64 - 4,  # ... of every output, all links rewired
}

# What becomes of a layer's count: kept, expected only, or rounded down to a multiple of its outputs, of its inputs.
COUNTS: dict[str, str] = {
    "random": "exact",
    "bernoulli": "expected",
    "fan_in": "fan_in",
    "fan_out": "fan_out",
    "expander": "exact",
    "small_world": "exact",
    "scale_free": "exact",
}


@partial(jax.jit, static_argnames="name")
def draw_lanes(name, keys, counts, settings):
    """Masks of many runs: a key and counts for each."""
    return jax.vmap(lambda key, counts: INITIAL[name](key, SHAPES, counts, settings))(keys, counts)


@partial(jax.jit, static_argnames=("draw", "shape"))
def draw_many(draw, shape, keys, count, *settings):
    """One layer's masks, by key."""
    return jax.vmap(lambda key: draw(key, shape, count, *settings))(keys)


def counts_of_lanes():
    """Every count from none to all, for the larger layer in even steps or nearly."""
    return {name: (jnp.arange(LANES) * size // (LANES - 1)).astype(jnp.int32) for name, size in SIZES.items()}


@pytest.fixture(scope="module", params=INITIAL)
def family(request):
    """A family's name and its masks with counts_of_lanes()."""
    keys = jax.random.split(jax.random.key(1), LANES)
    return request.param, keys, draw_lanes(request.param, keys, counts_of_lanes(), SETTINGS)


def granted(promise, shape, count):
    """The count that a family makes of the one it is asked for."""
    multiple = {"exact": 1, "fan_in": shape[-1], "fan_out": shape[-2]}[promise]
    return count // multiple * multiple


def chi_square(total, probability, draws, free):
    """The upper tail of the spread of counts by cell; exchangeable cells with `free` directions to vary in."""
    spread = ((total - draws * probability) ** 2).sum() / (draws * probability * (1 - probability))
    return stats.chi2.sf(spread * free / total.size, free)


# --- laws of every family --------------------------------------------------------------------------


def test_every_family_says_what_becomes_of_counts():
    assert list(COUNTS) == list(INITIAL)
    assert set(COUNTS.values()) == {"exact", "expected", "fan_in", "fan_out"}


def test_masks_are_as_declared(family):
    name, _, masks = family
    assert set(masks) == set(SHAPES)
    for layer, shape in SHAPES.items():
        assert masks[layer].dtype == bool
        assert masks[layer].shape == (LANES, *shape)
        asked, found = np.asarray(counts_of_lanes()[layer]), np.asarray(masks[layer]).reshape(LANES, -1).sum(1)
        if COUNTS[name] == "expected":  # as far off as a binomial count, and in all to neither side
            deviation = ((found - asked) / np.sqrt(asked * (1 - asked / SIZES[layer]) + 1e-30))[1:-1]
            assert 1e-4 < stats.chi2.sf((deviation**2).sum(), deviation.size) < 1 - 1e-4
            assert abs(deviation.sum()) <= 5 * np.sqrt(deviation.size)
        else:
            np.testing.assert_array_equal(found, granted(COUNTS[name], shape, asked))
        assert not masks[layer][0].any()
        assert masks[layer][-1].all()


def test_the_masks_are_a_function_of_the_key(family):
    name, keys, masks = family
    again = draw_lanes(name, keys, counts_of_lanes(), SETTINGS)
    others = draw_lanes(name, jax.random.split(jax.random.key(2), LANES), counts_of_lanes(), SETTINGS)
    for layer in SHAPES:
        np.testing.assert_array_equal(again[layer], masks[layer])
        differ = (others[layer] != masks[layer]).reshape(LANES, -1).any(1)
        assert differ[LANES // 4 : -LANES // 4].all()
    alike = (masks["b/kernel"] == masks["c/kernel"]).reshape(LANES, -1).all(1)
    assert not alike[LANES // 4 : -LANES // 4].any()


def test_a_lane_equals_a_run_alone_with_concrete_counts(family):
    name, keys, masks = family
    lane = LANES // 3
    counts = {layer: int(count[lane]) for layer, count in counts_of_lanes().items()}
    alone = jax.jit(lambda key: INITIAL[name](key, SHAPES, counts, SETTINGS))(keys[lane])
    for layer in SHAPES:
        np.testing.assert_array_equal(alone[layer], masks[layer][lane])


@pytest.mark.parametrize("draw", UNIFORM)
def test_every_cell_is_as_likely(draw):
    shape, count, draws = (2, 2, 4, 4), 32, 4000
    rewired = (jnp.float32(1),) if draw is random_graphs.small_world else ()
    masks = draw_many(draw, shape, jax.random.split(jax.random.key(4), draws), jnp.int32(count), *rewired)
    total = np.asarray(masks.sum(0), float)
    assert 1e-4 < chi_square(total, count / total.size, draws, UNIFORM[draw]) < 1 - 1e-4


# --- degrees ---------------------------------------------------------------------------------------


def test_fan_in_and_fan_out_are_constant():
    keys, counts = jax.random.split(jax.random.key(5), LANES), counts_of_lanes()
    incoming, outgoing = (draw_lanes(name, keys, counts, SETTINGS) for name in ("fan_in", "fan_out"))
    for layer, (*_, n_in, n_out) in SHAPES.items():
        taps_and_lanes = tuple(range(1, len(SHAPES[layer]) - 1))
        in_degrees = incoming[layer].sum((*taps_and_lanes, -2))
        out_degrees = outgoing[layer].sum((*taps_and_lanes, -1))
        np.testing.assert_array_equal(in_degrees, np.repeat((counts[layer] // n_out)[:, None], n_out, 1))
        np.testing.assert_array_equal(out_degrees, np.repeat((counts[layer] // n_in)[:, None], n_in, 1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (5, 6), (2, 2, 3, 5)])
def test_the_degrees_of_an_expander_differ_by_at_most_one(shape):
    """Every count of these shapes, three keys each."""
    counts = jnp.tile(jnp.arange(np.prod(shape) + 1), 3)
    draw = jax.vmap(lambda key, count: random_graphs.expander(key, shape, count))
    masks = jax.jit(draw)(jax.random.split(jax.random.key(6), counts.size), counts)
    edges = np.asarray(masks).reshape(counts.size, -1, shape[-1])
    np.testing.assert_array_equal(edges.sum((1, 2)), counts)
    for side in (1, 2):
        degrees = edges.sum(side)
        assert (np.ptp(degrees, axis=1) <= 1).all()


def regular_graphs(rows, columns, count):
    """The graphs of as equal degrees as can be, one bit a cell, by looking at all of them."""
    for ones in itertools.combinations(range(rows * columns), count):
        degrees = [[0] * rows, [0] * columns]
        for cell in ones:
            degrees[0][cell // columns] += 1
            degrees[1][cell % columns] += 1
        if all(max(side) - min(side) <= 1 for side in degrees):
            yield sum(1 << cell for cell in ones)


@pytest.mark.parametrize(("rows", "columns", "count"), [(4, 4, 8), (3, 4, 5)])
def test_all_graphs_with_the_degrees_of_an_expander_are_as_likely(rows, columns, count):
    """90 matrices of 4 × 4 have two ones in every row and column."""
    graphs = sorted(regular_graphs(rows, columns, count))
    keys = jax.random.split(jax.random.key(7), 100 * len(graphs))
    masks = np.asarray(draw_many(random_graphs.expander, (rows, columns), keys, jnp.int32(count)))
    codes, frequencies = np.unique(masks.reshape(len(keys), -1) @ (1 << np.arange(rows * columns)), return_counts=True)
    assert codes.tolist() == graphs
    assert len(graphs) == 90 or count != 8
    assert 1e-4 < stats.chisquare(frequencies).pvalue < 1 - 1e-4


def second_singular_value(edges):
    return np.linalg.svd(np.asarray(edges, float), compute_uv=False)[1]


def test_an_expander_expands():
    """Random d-regular graphs have a second singular value about 2 √(d − 1) (Friedman 2008); a ring has nearly d."""
    units, degree = 96, 6
    count = jnp.int32(units * degree)
    graph = draw_many(random_graphs.expander, (units, units), jax.random.split(jax.random.key(8), 1), count)[0]
    assert second_singular_value(random_graphs._staircase(units, units, count)) > 0.99 * degree
    assert second_singular_value(graph) < 1.1 * 2 * np.sqrt(degree - 1)


def degrees_about_the_weights(side):
    """Mean degrees of `sample` with hub weights on one side, against those expected of rare links."""
    exponent, units, count, draws = 3.0, 30, 40, 600
    w = random_graphs.hub_weights(units, exponent)
    weight = jnp.broadcast_to(jnp.expand_dims(w, 1 - side), (units, units))
    keys = jax.random.split(jax.random.key(9), draws)
    masks = jax.jit(jax.vmap(lambda key: random_graphs.sample(key, weight, jnp.int32(count))))(keys)
    return np.asarray(masks.sum((0, 2 - side))) / draws, count * np.asarray(w / w.sum())


@pytest.mark.parametrize("side", [0, 1])
def test_hubs_have_the_degrees_of_a_power_law(side):
    """γ = 3: the degree of rank r falls as (r + 1)^(−1/2), save for what the hubs cannot take twice."""
    found, expected = degrees_about_the_weights(side)
    slope = np.polyfit(np.log(np.arange(1, found.size + 1)), np.log(found), 1)[0]
    assert -0.53 < slope < -0.42
    np.testing.assert_allclose(found[3:], expected[3:], rtol=0.25)


def test_the_exponent_is_that_of_the_settings():
    keys, counts = jax.random.split(jax.random.key(19), LANES), counts_of_lanes()
    steep, flat = (draw_lanes("scale_free", keys, counts, SETTINGS._replace(exponent=jnp.float32(e))) for e in (2.5, 9))
    assert (steep["b/kernel"] != flat["b/kernel"]).any()


def test_one_draw_follows_the_weights():
    weight = jnp.arange(1.0, 13).reshape(3, 4)
    keys = jax.random.split(jax.random.key(10), 7800)
    masks = jax.jit(jax.vmap(lambda key: random_graphs.sample(key, weight, jnp.int32(1))))(keys)
    frequencies = np.asarray(masks.sum(0)).ravel()
    assert frequencies.sum() == 7800
    assert 1e-4 < stats.chisquare(frequencies, 100 * np.arange(1, 13)).pvalue < 1 - 1e-4


def test_scale_free_degrees_vary_far_more_than_random_ones():
    shape, count, keys = (60, 50), jnp.int32(300), jax.random.split(jax.random.key(11), 20)

    def spread(masks):
        """Variance of the degrees of each side, mean over the keys."""
        return np.array([np.asarray(masks.sum(side)).var(1).mean() for side in (1, 2)])

    plain = spread(draw_many(random_graphs.uniform, shape, keys, count))
    hubs, fewer, none = (
        spread(draw_many(random_graphs.scale_free, shape, keys, count, jnp.float32(exponent)))
        for exponent in (2.5, 4, 1e6)
    )
    assert (hubs > 2 * fewer).all()
    assert (fewer > 1.5 * plain).all()
    assert (none < 1.3 * plain).all()


@pytest.mark.parametrize("side", [2, 3])
def test_hubs_are_anywhere(side):
    """Every input channel, and every output, has the same degree in the mean, to five standard errors."""
    keys = jax.random.split(jax.random.key(12), 2000)
    masks = draw_many(random_graphs.scale_free, (3, 6, 5), keys, jnp.int32(9), jnp.float32(2.5))
    degrees = np.asarray(masks.sum((1, 5 - side)))
    errors = degrees.std(0) / np.sqrt(len(keys))
    assert (abs(degrees.mean(0) - 9 / degrees.shape[1]) < 5 * errors).all()


# --- small worlds ----------------------------------------------------------------------------------


def lattice(cells, outputs, count):
    """The nearest cells of every output on the ring, those ahead first: sorted by distance in exact integers."""
    edges = np.zeros((cells, outputs), bool)
    for j in range(outputs):
        links = count // outputs + (j < count % outputs)
        stand = j * cells // outputs
        nearest = [stand, *(stand + sign * d for d in range(1, cells) for sign in (1, -1))]
        ring = list(dict.fromkeys(cell % cells for cell in nearest))
        edges[ring[:links], j] = True
    return edges


def test_without_rewiring_a_small_world_is_the_lattice():
    settings = SETTINGS._replace(rewiring=jnp.float32(0))
    counts = counts_of_lanes()
    masks = draw_lanes("small_world", jax.random.split(jax.random.key(13), LANES), counts, settings)
    for lane in range(LANES):
        edges = lattice(9, 8, int(counts["b/kernel"][lane]))
        np.testing.assert_array_equal(masks["b/kernel"][lane], edges)
        edges = lattice(8, 6, int(counts["a/kernel"][lane]))  # 4 channels of 2 taps
        np.testing.assert_array_equal(masks["a/kernel"][lane, :, 0], edges.reshape(4, 2, 6).swapaxes(0, 1))


@pytest.mark.parametrize("rewiring", [0.0, 0.2, 0.6, 1.0])
def test_rewiring_leaves_the_share_of_the_lattice_that_it_should(rewiring):
    """A link stays with 1 − β, and one that goes comes back with the chance that its place is drawn."""
    cells, outputs, links, draws = 40, 10, 8, 400
    keys = jax.random.split(jax.random.key(14), draws)
    count = jnp.int32(outputs * links)
    masks = np.asarray(draw_many(random_graphs.small_world, (cells, outputs), keys, count, jnp.float32(rewiring)))
    np.testing.assert_array_equal(masks.sum(1), links)
    lost = stats.binom(links, rewiring)
    back = sum(lost.pmf(b) * b * b / (cells - links + b) for b in range(links + 1)) / links
    overlap = (masks & lattice(cells, outputs, outputs * links)).sum() / masks.sum()
    deviation = 3 / np.sqrt(masks.sum())
    assert overlap == pytest.approx(1 - rewiring + back, abs=deviation if rewiring else 0)
    assert rewiring < 1 or overlap == pytest.approx(links / cells, abs=deviation)


# --- from scores -----------------------------------------------------------------------------------

few_values = hnp.arrays(np.float32, 20, elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
globally = jax.jit(from_scores_globally)
by_layer = jax.jit(from_scores)


@settings(max_examples=100, deadline=None)
@given(few_values, st.integers(-1, 21))
def test_a_global_ranking_equals_a_sort(values, total):
    """Layers a (2 × 5), b (4), c (2 × 1 × 3) hold the values in this order, whatever that of the dict."""
    scores = {"c": values[14:].reshape(2, 1, 3), "a": values[:10].reshape(2, 5), "b": values[10:14]}
    masks = globally(scores, total)
    best = sorted(range(20), key=lambda i: (-values[i], i))[: max(total, 0)]
    flat = np.concatenate([np.ravel(masks[layer]) for layer in "abc"])
    np.testing.assert_array_equal(np.flatnonzero(flat), sorted(best))
    assert {layer: mask.shape for layer, mask in masks.items()} == {"a": (2, 5), "b": (4,), "c": (2, 1, 3)}


@settings(max_examples=50, deadline=None)
@given(few_values, st.integers(0, 12), st.integers(0, 8))
def test_a_ranking_by_layer_equals_a_sort(values, first, second):
    scores = {"b": values[:12].reshape(3, 4), "a": values[12:]}
    masks = by_layer(scores, {"b": first, "a": second})
    for layer, count in (("b", first), ("a", second)):
        flat = scores[layer].ravel()
        best = sorted(range(flat.size), key=lambda i: (-flat[i], i))[:count]
        np.testing.assert_array_equal(np.flatnonzero(masks[layer]), sorted(best))


# --- from correlations -----------------------------------------------------------------------------

CORRELATED = {"dense_0": (8, 20), "output": (20, 3)}
correlate = jax.jit(lambda key, counts, x: correlation_masks(key, CORRELATED, counts, "dense_0", x))


def planted(groups, noise=0.3):
    """200 examples of 8 features: those of a group share a signal, of either sign; features 6 and 7 are constant."""
    generator = np.random.default_rng(0)
    signals = generator.normal(size=(200, 3))
    x = signals[:, groups] * [1, -1, 1, -1, 1, -1] + noise * generator.normal(size=(200, 6))
    return np.concatenate([x, np.full((200, 1), 0.1), np.zeros((200, 1))], axis=1).astype(np.float32)


def feature_sets(masks):
    return {tuple(np.flatnonzero(column)) for column in np.asarray(masks["dense_0"]).T}


def test_correlated_features_share_their_units():
    """Three pairs: 20 units of 8 features, 2 or 3 a feature. With two links a unit, each has a pair's two."""
    x, groups = planted([0, 0, 1, 1, 2, 2]), {(0, 1), (2, 3), (4, 5)}
    masks = [correlate(key, {"dense_0": 28, "output": 11}, x) for key in jax.random.split(jax.random.key(15), 8)]
    for mask in masks:
        assert mask["dense_0"].sum() == 28
        assert mask["output"].sum() == 11
        assert feature_sets(mask) <= groups | {(), (0,), (1,), (2,), (3,), (4,), (5,)}  # of constants: none
        assert feature_sets(mask) >= groups
    assert any((mask["dense_0"] != masks[0]["dense_0"]).any() for mask in masks)
    assert any((mask["output"] != masks[0]["output"]).any() for mask in masks)


def test_units_are_dealt_evenly_to_the_features():
    """A link a unit goes to its own feature, with which it correlates perfectly: 2 or 3 units a feature."""
    x = np.random.default_rng(2).normal(size=(200, 8)).astype(np.float32)
    keys = jax.random.split(jax.random.key(16), 8)
    masks = np.stack([correlate(key, {"dense_0": 20, "output": 1}, x)["dense_0"] for key in keys])
    assert (masks.sum(1) == 1).all()
    np.testing.assert_array_equal(np.sort(masks.sum(2)), [[2] * 4 + [3] * 4] * 8)
    assert (masks.sum(2) != masks.sum(2)[0]).any()
    assert (masks[:, :, :8] != masks[:, :, 8:16]).any()  # in no order of the units


def test_ties_of_constant_features_are_broken_at_random():
    x, draws = np.full((50, 8), 0.1, np.float32), 2000
    keys = jax.random.split(jax.random.key(17), draws)
    counts = {"dense_0": jnp.int32(40), "output": jnp.int32(5)}
    masks = jax.jit(jax.vmap(lambda key: correlation_masks(key, CORRELATED, counts, "dense_0", x)))(keys)
    for layer, count in counts.items():
        total = np.asarray(masks[layer].sum(0), float)
        assert 1e-4 < chi_square(total, float(count) / total.size, draws, total.size - 1) < 1 - 1e-4


def test_correlations_are_those_of_pearson():
    """The mask of k links is that of the k largest |ρ| with the features that units were dealt."""
    x = np.random.default_rng(1).normal(3, 2, size=(200, 8)).astype(np.float32) @ np.triu(np.ones((8, 8), np.float32))
    mask_of = lambda count: np.asarray(correlate(jax.random.key(18), {"dense_0": count, "output": 1}, x)["dense_0"])
    score = np.abs(np.corrcoef(x.T))[:, mask_of(20).argmax(0)]
    for count in (20, 37, 90, 150):
        mask = mask_of(count)
        assert mask.sum() == count
        assert score[mask].min() >= score[~mask].max() - 1e-5


@pytest.mark.parametrize("shape", [(3, 3, 8, 20), (7, 20)])
def test_correlations_need_a_dense_first_layer(shape):
    with pytest.raises(ValueError, match="need a dense first layer"):
        correlation_masks(jax.random.key(0), {"first": shape}, {"first": 3}, "first", jnp.ones((5, 8)))
