"""First masks from scores: each score against its definition, SynFlow against NumPy and the laws of its paper."""

from functools import cache, partial
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_jax.activations.by_layer import by_layer
from sparse_jax.activations.scaling import UNSCALED
from sparse_jax.models.mlp import MLP
from sparse_jax.topology.initial import from_scores, from_scores_globally
from sparse_jax.topology.masks import select
from sparse_jax.topology.paths import effective_masks
from sparse_jax.training.scores import (
    GRASP_TEMPERATURE,
    SYNFLOW_ROUNDS,
    _left,
    _unit_gain,
    grasp,
    magnitude,
    snip,
    synaptic_flow,
    synflow,
    synflow_globally,
)
from tests import oracle
from tests.tiny import LAYERS

SMALL = (6, 5, 4, 3)
LENET = (784, 300, 100, 10)
LENET_SEEDS = 2
DEEP = (64,) * 31
SEEDS = 3


def names_of(widths):
    return (*(f"dense_{i}/kernel" for i in range(len(widths) - 2)), "output/kernel")


def network(widths, activation):
    """The outputs of a network as a function of its parameters and inputs."""
    model = MLP(widths[1:-1], widths[-1], by_layer((activation,), None, UNSCALED), LAYERS, 0.0)
    return lambda params, x: model.apply({"params": params}, x, train=False)


def linear(widths):
    return lambda params: network(widths, "linear")(params, jnp.ones((1, widths[0])))


def initial(widths, seeds=SEEDS):
    """The parameters of untrained networks (Glorot uniform, and biases) with a leading axis for the seeds."""
    rng, params = np.random.default_rng(0), {}
    for name, inputs, outputs in zip(names_of(widths), widths[:-1], widths[1:], strict=True):
        limit = np.sqrt(6 / (inputs + outputs))
        kernel = rng.uniform(-limit, limit, (seeds, inputs, outputs)).astype(np.float32)
        bias = rng.normal(0, 0.1, (seeds, outputs)).astype(np.float32)
        params[name.split("/")[0]] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return params


def at(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def float64(params, widths):
    return {name: np.float64(kernel) for name, kernel in select(params, names_of(widths)).items()}


def batch(widths, n=9):
    x = np.random.default_rng(1).normal(size=(n, widths[0])).astype(np.float32)
    return x, np.arange(n, dtype=np.int32) % widths[-1]


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def same(masks, expected):
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, expected[name], err_msg=name)


# --- one ranking -----------------------------------------------------------------------------------


def test_magnitude_keeps_the_largest_weights():
    params = initial(SMALL)
    masks = jax.vmap(lambda p: from_scores_globally(magnitude(p, names_of(SMALL)), 20))(params)
    for i in range(SEEDS):
        weights = float64(at(params, i), SMALL)
        threshold = sorted(np.concatenate([np.abs(w).ravel() for w in weights.values()]))[-20]
        same(at(masks, i), {name: np.abs(w) >= threshold for name, w in weights.items()})


def numpy_loss(params, kernels, x, y):
    """The cross entropy of the tanh network, float64."""
    for name in sorted(kernels):
        x = x @ kernels[name] + np.float64(params[name.split("/")[0]]["bias"])
        x = x if name.startswith("output") else np.tanh(x)
    return np.mean(np.log(np.exp(x).sum(-1)) - x[np.arange(len(y)), y])


def test_snip_is_what_the_loss_changes_by_as_a_connection_is_multiplied():
    """|L(c_j = 1 + ε) − L(c_j = 1 − ε)| / 2ε, for every j; in float64 its error is of order ε² + 1e-16/ε."""
    params, (x, y), epsilon = initial(SMALL), batch(SMALL), 1e-5

    def scores(p):
        return snip(lambda p: cross_entropy(network(SMALL, "tanh")(p, x), y), p, names_of(SMALL))

    found = jax.jit(jax.vmap(scores))(params)
    for i in range(SEEDS):
        kernels = float64(at(params, i), SMALL)
        for name, kernel in kernels.items():
            change = np.zeros(kernel.shape)
            for j in np.ndindex(kernel.shape):
                losses = []
                for factor in (1 + epsilon, 1 - epsilon):
                    moved = kernel.copy()
                    moved[j] *= factor
                    losses.append(numpy_loss(at(params, i), kernels | {name: moved}, np.float64(x), y))
                change[j] = abs(losses[0] - losses[1]) / (2 * epsilon)
            assert change.max() > 0.01
            np.testing.assert_allclose(found[name][i], change, rtol=1e-4, atol=1e-6)


def flat_loss(params, x, y):
    """The cross entropy at the paper's temperature, of the kernels as one vector, and that vector."""
    weights, unflatten = jax.flatten_util.ravel_pytree(select(params, names_of(SMALL)))

    def loss(vector):
        kernels = unflatten(vector)
        full = {layer: leaves | {"kernel": kernels[f"{layer}/kernel"]} for layer, leaves in params.items()}
        return cross_entropy(network(SMALL, "tanh")(full, x) / 200, y)

    return loss, weights


@cache
def grasp_scores():
    x, y = batch(SMALL)

    def scores(p):
        return grasp(lambda p: network(SMALL, "tanh")(p, x), y, p, names_of(SMALL), GRASP_TEMPERATURE)

    return jax.jit(jax.vmap(scores))(initial(SMALL))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_grasp_equals_the_explicit_hessian(seed):
    params = at(initial(SMALL), seed)
    loss, weights = flat_loss(params, *batch(SMALL))
    hessian, gradient = np.float64(jax.jit(jax.hessian(loss))(weights)), np.float64(jax.grad(loss)(weights))
    expected = np.float64(weights) * (hessian @ gradient)
    found = jax.flatten_util.ravel_pytree(at(grasp_scores(), seed))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert (expected < 0).any()
    assert (expected > 0).any()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_grasp_removes_what_the_gradient_flow_grows_without(seed):
    """∂(gᵀg)/∂c_j at c = 1 is 2 s_j: without the connections of smallest score the flow is largest."""
    loss, weights = flat_loss(at(initial(SMALL), seed), *batch(SMALL))
    scores = jax.flatten_util.ravel_pytree(at(grasp_scores(), seed))[0]

    @jax.jit
    def gradient_flow(c):
        return jnp.sum(jax.grad(loss)(c * weights) ** 2)

    one = jnp.ones_like(weights)
    slope = np.asarray(jax.jit(jax.grad(gradient_flow))(one))
    np.testing.assert_allclose(slope, 2 * scores, rtol=1e-3, atol=1e-4 * np.abs(slope).max())
    order = np.argsort(scores)
    shrunk = {name: one.at[chosen].set(0.9) for name, chosen in (("least", order[:10]), ("most", order[-10:]))}
    assert gradient_flow(shrunk["least"]) > gradient_flow(one) > gradient_flow(shrunk["most"])


# --- SynFlow ---------------------------------------------------------------------------------------


def numpy_flow(kernels):
    """|w| ∂R/∂|w| = |w_ij| · (flow into i) · (flow from j), layer by layer in float64."""
    into = [np.ones(next(iter(kernels.values())).shape[0])]
    for kernel in kernels.values():
        into.append(into[-1] @ np.abs(kernel))
    scores, beyond = {}, np.ones(into[-1].shape)
    for (name, kernel), arriving in reversed(list(zip(kernels.items(), into[:-1], strict=True))):
        scores[name] = np.abs(kernel) * arriving[:, None] * beyond
        beyond = np.abs(kernel) @ beyond
    return scores


def ranked(scores, left, masks):
    """The best `left` connections of all these layers together, and whether by more than rounding.

    Exact zeros are ties that the index decides. Any other tie is the rounding's to decide: the one link into a
    neuron has the score of the one link out of it.
    """
    flat, active = (np.concatenate([part[name].ravel() for name in masks]) for part in (scores, masks))
    kept = oracle.top_k(flat, left, active)
    last, next_best = flat[kept].min(initial=np.inf), flat[active & ~kept].max(initial=0)
    parts = np.split(kept, np.cumsum([mask.size for mask in masks.values()])[:-1])
    shaped = {name: part.reshape(masks[name].shape) for name, part in zip(masks, parts, strict=True)}
    return shaped, last == 0 or next_best < (1 - 1e-4) * last


def numpy_synflow(kernels, pools, rounds):
    """The masks after all rounds, and whether no rank was a tie; `pools` are pairs (layer names, count)."""
    masks, clear = {name: np.ones(kernel.shape, bool) for name, kernel in kernels.items()}, True
    for k in range(1, rounds + 1):
        scores = numpy_flow({name: np.where(masks[name], kernel, 0) for name, kernel in kernels.items()})
        for names, count in pools:
            size = sum(kernels[name].size for name in names)
            left = int(np.ceil(size * (count / size) ** (k / rounds)))
            kept, decided = ranked(scores, left, {name: masks[name] for name in names})
            masks, clear = masks | kept, clear and decided
    return masks, clear


@partial(jax.jit, static_argnums=(0, 3))
def flow(widths, params, masks, in_series):
    return synaptic_flow(linear(widths), params, masks, in_series)


@partial(jax.jit, static_argnums=2)
def pruned_small(params, total, rounds):
    """SynFlow over all layers of all seeds."""
    return jax.vmap(lambda p: synflow_globally(linear(SMALL), p, names_of(SMALL), total, rounds, True))(params)


@pytest.mark.parametrize("rounds", [1, 2, 30])
def test_synflow_over_all_layers_equals_numpy(rounds):
    compared = 0
    for total in (0, 5, 10, 20, 31, 40, 50, 61, 62):
        masks = pruned_small(initial(SMALL), jnp.int32(total), rounds)
        for i in range(SEEDS):
            kernels = float64(at(initial(SMALL), i), SMALL)
            expected, clear = numpy_synflow(kernels, [(names_of(SMALL), total)], rounds)
            assert sum(mask.sum() for mask in expected.values()) == total
            if clear:
                same(at(masks, i), expected)
            compared += clear
    assert compared > 12, "too few of 27 without a tie"


@jax.jit
def pruned_small_by_layer(params, counts):
    return jax.vmap(lambda p: synflow(linear(SMALL), p, names_of(SMALL), counts, 10, True))(params)


@pytest.mark.parametrize("counts", [(30, 20, 12), (9, 7, 5), (15, 10, 3), (30, 4, 0)])
def test_synflow_by_layer_equals_numpy(counts):
    counts, compared = dict(zip(names_of(SMALL), counts, strict=True)), 0
    masks = pruned_small_by_layer(initial(SMALL), jax.tree.map(jnp.int32, counts))
    for i in range(SEEDS):
        pools = [((name,), count) for name, count in counts.items()]
        expected, clear = numpy_synflow(float64(at(initial(SMALL), i), SMALL), pools, 10)
        assert {name: int(mask.sum()) for name, mask in at(masks, i).items()} == counts
        if clear:
            same(at(masks, i), expected)
        compared += clear
    assert compared > 0


@pytest.mark.parametrize("size", [1000, 235146])
def test_the_schedule_falls_to_the_exact_count(size):
    counts = jnp.arange(0, size + 1, max(size // 1000, 1))
    left = np.stack([_left(size, counts, jnp.float32(k) / 20) for k in range(21)])
    assert (left[0] == size).all()
    assert (np.diff(left, axis=0) <= 0).all()
    np.testing.assert_array_equal(left[-1], counts)


@pytest.mark.parametrize("total", [0, 1, 2, 3, 7, 33, 61, 62])
def test_totals_are_exact_and_one_program_serves_them_all(total):
    masks = pruned_small(initial(SMALL), jnp.int32(total), 30)
    assert [sum(int(mask[i].sum()) for mask in masks.values()) for i in range(SEEDS)] == [total] * SEEDS
    before = pruned_small._cache_size()
    pruned_small(initial(SMALL), jnp.int32(total + 1), 30)
    assert pruned_small._cache_size() == before


def test_a_run_is_pruned_alone_as_among_others():
    together = pruned_small(initial(SMALL), jnp.int32(20), 30)
    for i in range(SEEDS):
        alone = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], initial(SMALL))
        same(at(pruned_small(alone, jnp.int32(20), 30), 0), at(together, i))


@cache
def pruned_lenet(rounds, total):
    prune = jax.vmap(lambda p: synflow_globally(linear(LENET), p, names_of(LENET), jnp.int32(total), rounds, True))
    return jax.jit(prune)(initial(LENET, LENET_SEEDS))


def used(masks):
    """Connections on a path from an input to an output, by layer."""
    return [int(mask.sum()) for mask in effective_masks([np.asarray(masks[name]) for name in names_of(LENET)])]


@pytest.mark.slow
def test_synflow_keeps_every_layer_where_one_ranking_loses_one():
    """266 of the 266,200 connections of LeNet-300-100: 99.9 % sparse."""
    total, params = 266, initial(LENET, LENET_SEEDS)
    x, y = batch(LENET, 100)
    loss = lambda p: cross_entropy(network(LENET, "relu")(p, x), y)
    once = {
        "synflow": pruned_lenet(1, total),
        "snip": jax.vmap(lambda p: from_scores_globally(snip(loss, p, names_of(LENET)), total))(params),
        "magnitude": jax.vmap(lambda p: from_scores_globally(magnitude(p, names_of(LENET)), total))(params),
    }
    for i in range(LENET_SEEDS):
        masks = at(pruned_lenet(SYNFLOW_ROUNDS, total), i)
        assert sum(int(mask.sum()) for mask in masks.values()) == total
        assert min(used(masks)) > 20
        assert sum(used(masks)) > 0.97 * total
        for name, collapsed in once.items():
            assert int(at(collapsed, i)["dense_0/kernel"].sum()) == 0, name


def test_the_flow_into_a_neuron_flows_out_of_it():
    params = at(initial(LENET, LENET_SEEDS), 0)
    names = names_of(LENET)
    counts = dict(zip(names, (20000, 3000, 500), strict=True))
    masks = jax.jit(lambda p: from_scores(magnitude(p, names), counts))(params)
    layers = [np.float64(scores) for scores in flow(LENET, params, masks, True).values()]
    for before, after in pairwise(layers):
        np.testing.assert_allclose(before.sum(0), after.sum(1), rtol=1e-5)
    for scores, mask in zip(layers, masks.values(), strict=True):
        assert (scores[np.asarray(mask)] > 0).all()
        assert (scores[~np.asarray(mask)] == 0).all()


def test_rescaling_changes_no_bit_of_a_significand():
    params = at(initial(SMALL), 1)
    masks = {name: jnp.asarray(np.random.default_rng(3).random(kernel.shape) < 0.7)
             for name, kernel in select(params, names_of(SMALL)).items()}  # fmt: skip
    scaled, plain = (flow(SMALL, params, masks, in_series) for in_series in (True, False))
    ratios = set(np.concatenate([(scaled[name] / plain[name])[mask] for name, mask in masks.items()]).tolist())
    assert len(ratios) == 1
    assert np.frexp(ratios.pop())[0] == 0.5
    biased = jax.tree_util.tree_map_with_path(lambda path, v: v + 7 if path[-1].key == "bias" else v, params)
    same(flow(SMALL, biased, masks, True), scaled)


def common_factor(scores, exact):
    """The power of two between the scores and those of NumPy, from all their entries."""
    logs = np.concatenate([(np.log2(np.float64(scores[name])) - np.log2(exact[name])).ravel() for name in exact])
    assert np.ptp(logs) < 1e-4
    return np.round(logs.mean())


@pytest.mark.parametrize("gain", [1.0, 100.0, 0.01])
def test_the_flow_of_a_deep_network_stays_within_float32(gain):
    """30 layers of 64, initial weights multiplied by the gain: R about 1e27, 1e87 and 1e-33."""
    params = jax.tree.map(lambda v: gain * v, at(initial(DEEP), 0))
    names = names_of(DEEP)
    masks = {name: jnp.ones((64, 64), bool) for name in names}
    exact = numpy_flow(float64(params, DEEP))
    plain, scaled = (flow(DEEP, params, masks, in_series) for in_series in (False, True))
    if gain != 1:
        assert not all(np.isfinite(v).all() and (v > 0).all() for v in plain.values()), "there is nothing to rescale"
    assert abs(common_factor(scaled, exact) + np.log2(exact[names[0]].sum())) < 40, "R is far from 1"


def test_synflow_of_a_deep_network_equals_numpy():
    """At 99 %, after 10 rounds. Only ranks that rounding decides may differ: few of 1,229 connections."""
    params = jax.tree.map(lambda v: 100 * v, at(initial(DEEP), 1))
    prune = lambda p: synflow_globally(linear(DEEP), p, names_of(DEEP), jnp.int32(1229), 10, True)
    masks = jax.jit(prune)(params)
    expected, _ = numpy_synflow(float64(params, DEEP), [(names_of(DEEP), 1229)], 10)
    assert sum(int(mask.sum()) for mask in masks.values()) == 1229
    assert min(int(mask.sum()) for mask in masks.values()) > 5
    assert sum(int((np.asarray(masks[name]) != expected[name]).sum()) for name in expected) <= 4


@pytest.mark.parametrize("pattern", ["full", "diagonal", "one", "star", "none", "window"])
def test_the_gain_bound_is_sharp_for_regular_kernels(pattern):
    """Equal weights: full 8 × 8 has norm 8 w, a diagonal and a single one w, 1 × 64 8 w, 4 × 4 at 9 taps 36 w."""
    kernel, norm = {
        "full": (np.ones((8, 8)), 8),
        "diagonal": (np.eye(8), 1),
        "one": (np.eye(8) * (np.arange(8) == 3), 1),
        "star": (np.ones((1, 64)), 8),
        "none": (np.zeros((8, 8)), 1),
        "window": (np.ones((3, 3, 4, 4)), 36),
    }[pattern]
    for factor in (1e-20, 1.0, 1.4, 1.5, 3e10):  # 1.4 is nearer to 1, 1.5 to 2 by ratio
        power = 2.0 ** np.round(np.log2(factor * norm))
        np.testing.assert_array_equal(
            _unit_gain(jnp.float32(factor * kernel)), np.float32(factor * kernel) / np.float32(power)
        )


class Convolutions(nn.Module):
    """Eight convolutions of 16 channels with batch normalisation, then a dense layer."""

    normalised: bool

    @nn.compact
    def __call__(self, x):
        for i in range(8):
            x = nn.Conv(16, (3, 3), name=f"conv_{i}")(x)
            if self.normalised:
                x = nn.BatchNorm(use_running_average=True, name=f"norm_{i}")(x)
        return nn.Dense(10, name="output")(x.reshape(1, -1))


def test_batch_normalisation_at_its_initial_statistics_changes_no_rank():
    x = jnp.ones((1, 6, 6, 3))
    model = Convolutions(True)
    variables = jax.jit(model.init)(jax.random.key(4), x)
    params, statistics = variables["params"], variables["batch_stats"]
    names = (*(f"conv_{i}/kernel" for i in range(8)), "output/kernel")
    masks = {name: jnp.ones(kernel.shape, bool) for name, kernel in select(params, names).items()}
    with_norm = lambda p: model.apply({"params": p, "batch_stats": statistics}, x)
    without = lambda p: Convolutions(False).apply({"params": p}, x)
    flows = {
        "plain": jax.jit(lambda p: synaptic_flow(without, p, masks, False))(params),
        "scaled": jax.jit(lambda p: synaptic_flow(with_norm, p, masks, True))(params),
    }
    ratio = np.concatenate([(flows["scaled"][name] / flows["plain"][name]).ravel() for name in names])
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
    totals = [float(np.float64(score).sum()) for score in flows["scaled"].values()]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-4)
    assert 1e-3 < totals[0] < 1e5


def test_beside_a_shortcut_only_the_plain_flow_is_the_papers():
    """y = x + x A B of 4 × 4: R = 1ᵀ1 + 1ᵀ|A||B|1, scores of A: |a_ij| (|B|1)_j."""
    rng = np.random.default_rng(5)
    params = {name: {"kernel": jnp.float32(8 * rng.normal(size=(4, 4)))} for name in ("a", "b", "c")}
    names = tuple(f"{name}/kernel" for name in params)
    masks = {name: jnp.ones((4, 4), bool) for name in names}

    def forward(p):
        x = jnp.ones((1, 4)) @ p["c"]["kernel"]
        return x + x @ p["a"]["kernel"] @ p["b"]["kernel"]

    a, b, c = (np.abs(np.float64(params[name]["kernel"])) for name in ("a", "b", "c"))
    x = np.ones(4) @ c
    exact = {
        "a/kernel": a * x[:, None] * b.sum(1),
        "b/kernel": b * (x @ a)[:, None],
        "c/kernel": c * (1 + a @ b.sum(1)),
    }
    for name, score in synaptic_flow(forward, params, masks, False).items():
        np.testing.assert_allclose(score, exact[name], rtol=1e-5)
    with pytest.raises(AssertionError):
        common_factor(synaptic_flow(forward, params, masks, True), exact)
