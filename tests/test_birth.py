"""What new connections begin with, in one layer by hand and in a run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from sparse_jax.config import BIRTHS as NAMES
from sparse_jax.data.batches import batch_at
from sparse_jax.data.normalization import make_apply
from sparse_jax.models.mlp import MLP
from sparse_jax.topology.birth import BIRTHS, Born, born_weights, fan_scale
from sparse_jax.topology.masks import select
from sparse_jax.training import optimizers
from sparse_jax.training.parts import ORDER
from sparse_jax.training.train import make_train
from tests import oracle
from tests.tiny import INTERVAL, LAYERS, SIZES, make_config, make_data, make_hyper, make_tiny_problem

# a survivor, a connection dropped and drawn again, a new one, one that was dropped, and one that never was
WEIGHT, FRESH = np.float32([[0.7, -0.3, 0, 0.2, 0]]), np.float32([[5, 6, 7, 8, 9]])
GRADIENT, RATE = np.float32([[10, 20, -30, 40, 50]]), np.float32(0.5)
MASK, SURVIVOR = np.array([[1, 1, 1, 0, 0]], bool), np.array([[1, 0, 0, 0, 0]], bool)
EXPECTED = {
    "zero": [0.7, 0, 0, 0, 0],
    "kept": [0.7, -0.3, 0, 0, 0],
    "fresh": [0.7, 6, 7, 0, 0],
    "gradient": [0.7, -0.5 * 20, 0.5 * 30, 0, 0],
}


@pytest.mark.parametrize("birth", NAMES)
def test_each_birth_by_hand(birth):
    born = {"a": Born(WEIGHT, FRESH, GRADIENT, RATE), "b": Born(2 * WEIGHT, 2 * FRESH, 2 * GRADIENT, RATE)}
    masks, survivors = {"a": MASK, "b": np.ones_like(MASK)}, {"a": SURVIVOR, "b": np.ones_like(MASK)}
    new = born_weights(birth, masks, survivors, born)
    np.testing.assert_array_equal(new["a"][0], np.float32(EXPECTED[birth]))
    np.testing.assert_array_equal(new["b"], 2 * WEIGHT)
    assert BIRTHS.keys() == EXPECTED.keys()


def test_what_is_not_used_may_be_missing_or_not_finite():
    wild = Born(np.where(MASK, WEIGHT, np.nan), None, np.full_like(WEIGHT, np.inf), RATE)
    for birth in ("zero", "kept"):
        new = born_weights(birth, {"a": MASK}, {"a": SURVIVOR}, {"a": wild})
        np.testing.assert_array_equal(new["a"][0], np.float32(EXPECTED[birth]))
    assert (born_weights("gradient", {"a": SURVIVOR}, {"a": SURVIVOR}, {"a": wild})["a"][0, 1:] == 0).all()


@functools.cache
def config_of(birth):
    return make_config("set", birth=birth, optimizer="adam", allocation="uniform")


@functools.cache
def runs(birth):
    """Before and after each of two updates, of several seeds: a run at 30 % sparsity that moves 40 %."""
    config, data = config_of(birth), make_data()
    fns = make_train(config, make_tiny_problem(config))
    init, steps, update = (jax.jit(fn) for fn in (fns.init, fns.steps, fns.update))
    made = []
    for seed in range(3):
        hyper = make_hyper(config, seed=seed, sparsity=0.3, drop_fraction=0.4, learning_rate=np.float32(0.01))
        state = init(hyper, data)
        for _ in range(2):
            before = steps(state, hyper, data, jnp.int32(INTERVAL))
            state = update(before, hyper, data)
            made.append((before, state))
    return made


def layers(before, after):
    """By layer: its name, the survivors of the update, the new connections, the weights before and after it."""
    old, new = (select(state.params, state.topology.masks) for state in (before, after))
    for name, mask in after.topology.masks.items():
        was = np.asarray(before.topology.masks[name])
        survivors = oracle.drop(was, np.asarray(old[name]), 0.4, per_sign=True)
        yield name, survivors, np.asarray(mask) & ~survivors, np.asarray(old[name]), np.asarray(new[name])


@jax.jit
def gradients(state, seed):
    """Of the loss at the masked weights, on the batch of the state's step."""
    data, model = make_data(), MLP((14, 10), 3, lambda i: jax.nn.relu, LAYERS, 0.0)
    key = jax.random.fold_in(jax.random.key(seed), ORDER)
    x, y = batch_at(data, key, state.step, n=SIZES[0], batch_size=8)

    def loss(params):
        logits = model.apply({"params": params}, make_apply("global_zscore")(data.normalization, x), train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return select(jax.grad(loss)(state.params), state.topology.masks)


@pytest.mark.parametrize("birth", BIRTHS)
def test_survivors_keep_their_weights_and_nothing_lies_outside_the_masks(birth):
    for before, after in runs(birth):
        for name, survivors, new, old_weight, weight in layers(before, after):
            assert new.any()
            assert (survivors <= np.asarray(after.topology.masks[name])).all()
            np.testing.assert_array_equal(weight[survivors], old_weight[survivors])
            assert (weight[~(survivors | new)] == 0).all()


@pytest.mark.parametrize("birth", BIRTHS)
def test_slots_of_the_new_are_zero_and_those_of_survivors_stay(birth):
    config = config_of(birth)
    tx = optimizers.make_optimizer(config, 0.01, 0.0)
    for before, after in runs(birth):
        slots = [[], []]
        for of, state in zip(slots, (before, after), strict=True):
            optax.tree.map_params(tx, lambda slot, of=of: of.append(np.asarray(slot)), state.opt_state)
        found = 0
        for name, survivors, new, *_ in layers(before, after):
            for was, now in zip(*slots, strict=True):
                if was.shape == new.shape:
                    assert (now[~survivors] == 0).all(), name
                    np.testing.assert_array_equal(now[survivors], was[survivors])
                    found += (was[new] != 0).any()
        assert found >= 2  # both slots of some layer had something to forget


def test_zero():
    for before, after in runs("zero"):
        for _, _, new, _, weight in layers(before, after):
            assert (weight[new] == 0).all()


def test_kept_is_the_old_weight_of_what_was_dropped_and_drawn_again():
    again, others = 0, 0
    for before, after in runs("kept"):
        for name, _, new, old_weight, weight in layers(before, after):
            was = np.asarray(before.topology.masks[name])
            np.testing.assert_array_equal(weight[new], np.where(was, old_weight, 0)[new])
            again, others = again + (weight[new] != 0).sum(), others + (new & ~was).sum()
    assert again > 50
    assert others > 50


def test_fresh_is_another_draw_of_the_initialisation():
    config, data = config_of("fresh"), make_data()
    fns = make_train(config, make_tiny_problem(config))
    drawn, seen = {}, {}
    for before, after in runs("fresh"):
        for name, _, new, old_weight, weight in layers(before, after):
            bound = np.sqrt(6 / sum(weight.shape))  # Glorot and Bengio 2010, uniform
            drawn.setdefault(name, []).append(weight[new] / bound)
            assert not np.isin(weight[new], old_weight[old_weight != 0]).any()
            seen.setdefault(name, []).append(np.where(new, weight, np.nan))
    for name, values in drawn.items():
        assert stats.kstest(np.concatenate(values), stats.uniform(-1, 2).cdf).pvalue > 1e-3, name
        # every update of every seed has a draw of its own
        for i, first in enumerate(seen[name]):
            assert not any((first == second).any() for second in seen[name][:i])
    first = jax.jit(fns.init)(make_hyper(config, seed=0, sparsity=0.0), data).params
    for name, kernel in select(first, drawn).items():
        assert not (np.asarray(kernel) == seen[name][0]).any()


def test_gradient_is_a_step_of_plain_descent():
    for i, (before, after) in enumerate(runs("gradient")):
        step = gradients(before, i // 2)
        for name, _, new, _, weight in layers(before, after):
            np.testing.assert_allclose(weight[new], -np.float32(0.01) * np.asarray(step[name])[new], 1e-4, 1e-8)
            assert (weight[new] != 0).any()


# --- initialisers that count active connections ----------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 5), (3, 2, 4, 5)])
@pytest.mark.parametrize("both", [False, True])
def test_the_scale_counts_the_active_connections_of_every_neuron(shape, both):
    mask = np.random.default_rng(0).random(shape) < 0.3
    mask[..., 0] = False  # a neuron without inputs
    scale = np.asarray(fan_scale(jnp.array(mask), both))
    for index in np.ndindex(shape):
        i, j = index[-2:]
        taps = mask.size // (shape[-2] * shape[-1])
        fan, active = taps * shape[-2], mask[..., j].sum()
        if both:
            fan, active = (fan + taps * shape[-1]) / 2, (active + mask[..., i, :].sum()) / 2
        np.testing.assert_allclose(scale[index], np.sqrt(fan / max(active, 1)), rtol=1e-6)


def test_a_dense_layer_is_left_as_it_is():
    for both in (False, True):
        np.testing.assert_array_equal(fan_scale(jnp.ones((7, 5), bool), both), np.ones((7, 5), np.float32))


@pytest.mark.parametrize("initializer", ["he_normal", "glorot_uniform"])
def test_active_fans_scale_the_same_draw_and_what_is_born_afresh(initializer):
    settings = {"initializer": initializer, "birth": "fresh", "drop_fraction": 0.4}
    dense, active = (make_config("set", init_fan=fan, **settings) for fan in ("dense", "active"))
    states = []
    for config in (dense, active):
        fns, data, hyper = make_train(config, make_tiny_problem(config)), make_data(), make_hyper(config)
        state = jax.jit(fns.init)(hyper, data)
        states.append((state, jax.jit(fns.update)(state, hyper, data)))
    (first, after), (scaled, scaled_after) = states
    for name, mask in first.topology.masks.items():
        scale = np.asarray(fan_scale(mask, initializer.startswith("glorot")))
        plain, ours = (select(state.params, [name])[name] for state in (first, scaled))
        np.testing.assert_array_equal(scaled.topology.masks[name], mask)
        np.testing.assert_allclose(ours, plain * scale, rtol=1e-6)
        assert (ours != plain).any()
        born = np.asarray(scaled_after.topology.masks[name]) & ~np.asarray(mask)
        both = born & np.asarray(after.topology.masks[name]) & ~np.asarray(mask)
        weights = [np.asarray(select(state.params, [name])[name]) for state in (after, scaled_after)]
        np.testing.assert_allclose(weights[1][both], (weights[0] * scale)[both], rtol=1e-6)
