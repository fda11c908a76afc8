"""What an optimiser is made of: clipping and weight decay by hand, and the course of the learning rate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_jax.config import OPTIMIZERS, RunConfig
from sparse_jax.topology.masks import apply_masks
from sparse_jax.training.network import descend, first_network
from sparse_jax.training.optimizers import make_optimizer, rate_factor
from tests import oracle_methods
from tests.test_laws import compiled, rule_of
from tests.tiny import make_config, make_data, make_hyper, make_tiny_problem

RATE, DECAY = 0.5, 0.01
PARAMS = {"dense_0": {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.zeros(2)}}


def gradient(size):
    """Of norm 5 times the size: 3 in the kernel and 4 in the bias."""
    return {"dense_0": {"kernel": size * jnp.array([[3.0, 0.0], [0.0, 0.0]]), "bias": size * jnp.array([0.0, 4.0])}}


def moved(config, grads, decay=0.0):
    tx = make_optimizer(config, jnp.float32(RATE), jnp.float32(decay))
    return tx.update(grads, tx.init(PARAMS), PARAMS)[0]


# --- clipping --------------------------------------------------------------------------------------


def test_a_huge_gradient_moves_exactly_as_far_as_the_clip_and_keeps_its_direction():
    config = RunConfig(optimizer="sgd", gradient_clip=2.0)
    steps = moved(config, gradient(1e6))
    np.testing.assert_allclose(optax.tree.norm(steps), RATE * 2, rtol=1e-6)
    np.testing.assert_allclose(steps["dense_0"]["kernel"][0, 0], -RATE * 2 * 3 / 5, rtol=1e-6)
    np.testing.assert_allclose(steps["dense_0"]["bias"][1], -RATE * 2 * 4 / 5, rtol=1e-6)


def test_a_small_gradient_is_not_clipped():
    clipped, plain = (moved(RunConfig(optimizer="sgd", gradient_clip=clip), gradient(0.1)) for clip in (2.0, 0.0))
    jax.tree.map(np.testing.assert_array_equal, clipped, plain)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name not in ("adam", "adamw")])
def test_weight_decay_is_added_after_the_clip(optimizer):
    """−η (c g/‖g‖ + λ w), and once more its momentum of the first step with Nesterov."""
    config = RunConfig(optimizer=optimizer, gradient_clip=2.0)
    steps = moved(config, gradient(1e6), DECAY)["dense_0"]
    factor = 1.9 if optimizer == "nesterov" else 1
    expected = np.array([[2 * 3 / 5, 0], [0, 0]]) + DECAY * np.asarray(PARAMS["dense_0"]["kernel"])
    np.testing.assert_allclose(steps["kernel"], -RATE * factor * expected, rtol=1e-5)
    np.testing.assert_allclose(steps["bias"], [0, -RATE * factor * 2 * 4 / 5], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_sees_the_clipped_gradient(optimizer):
    config = RunConfig(optimizer=optimizer, gradient_clip=2.0)
    tx = make_optimizer(config, jnp.float32(RATE), jnp.float32(0))
    _, state = tx.update(gradient(1e6), tx.init(PARAMS), PARAMS)
    (mu,) = (leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state) if ".mu['dense_0']['bias']" in
             jax.tree_util.keystr(path))  # fmt: skip
    np.testing.assert_allclose(mu, [0, 0.1 * 2 * 4 / 5], rtol=1e-5)


def test_gradients_of_connections_that_are_not_there_do_not_count():
    config = dataclasses.replace(make_config("set", optimizer="sgd"), gradient_clip=2.0)
    hyper, key = make_hyper(config), jax.random.key(0)
    rule, tx = rule_of(config, hyper), make_optimizer(config, jnp.float32(RATE), jnp.float32(0))
    masks = {"dense_0/kernel": jnp.array([[True, False], [True, False]])}
    network = first_network(rule, tx, PARAMS, masks)
    grads = gradient(1.0)
    grads["dense_0"]["kernel"] = grads["dense_0"]["kernel"].at[:, 1].set(1e6)
    after = descend(rule, tx, jnp.float32(RATE), key, network, grads)
    steps = jax.tree.map(jnp.subtract, after.params, network.params)
    np.testing.assert_allclose(optax.tree.norm(steps), RATE * 2, rtol=1e-6)
    np.testing.assert_allclose(steps["dense_0"]["kernel"], [[-RATE * 2 * 3 / 5, 0], [0, 0]], rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after.params, apply_masks(after.params, masks))


def test_a_run_takes_no_longer_step_than_its_clip():
    config, data = make_config("rigl", optimizer="sgd", gradient_clip=1e-3), make_data()
    fns, hyper = compiled(config), make_hyper(config)._replace(weight_decay=np.float32(0))
    state = fns.init(hyper, data)
    for _ in range(3):
        before, state = state, fns.steps(state, hyper, data, jnp.int32(1))
        steps = jax.tree.map(jnp.subtract, state.params, before.params)
        np.testing.assert_allclose(optax.tree.norm(steps), 0.1 * 1e-3, rtol=1e-3)


# --- the course of the learning rate ---------------------------------------------------------------


def factors(config, steps):
    problem = make_tiny_problem(config)
    return np.asarray(jax.vmap(lambda step: rate_factor(config, problem, step))(jnp.arange(steps)))


def test_a_warm_up_by_hand():
    """Epochs have four steps: half of one rises 1/2, 1; two of them by eighths; 0.6 of one by 1/2.4."""
    for epochs, expected in (
        (0.5, [0.5, 1, 1]),
        (2.0, [i / 8 for i in range(1, 9)] + [1, 1]),
        (0.6, [1 / 2.4, 2 / 2.4, 1, 1]),
        (0.1, [1, 1]),
    ):
        np.testing.assert_allclose(factors(make_config(warmup_epochs=epochs), len(expected)), expected, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_schedule_takes_its_course_during_the_warm_up(schedule):
    plain, warmed = (factors(make_config(lr_schedule=schedule, warmup_epochs=epochs), 40) for epochs in (0.0, 2.5))
    np.testing.assert_allclose(warmed, plain * np.minimum(1, np.arange(1, 41) / 10), rtol=1e-6)
    assert (warmed > 0).all()


def test_a_method_that_rewinds_warms_up_again_as_far_as_it_goes_back():
    """Eleven steps to the first pruning and back to step 2 after each; a warm-up of four steps has 3/4 there."""
    config = make_config("lottery_ticket", levels=3, rewind_to=2, interval=11, warmup_epochs=1.0)
    clock, _ = oracle_methods.rate_clock(11, 2, 3, 40)
    np.testing.assert_allclose(factors(config, 40), np.minimum(1, (np.array(clock) + 1) / 4), rtol=1e-6)
    assert factors(config, 12)[11] == 0.75


def test_a_run_learns_at_the_rate_of_its_warm_up():
    """With plain gradient descent the first step goes 1/8 as far."""
    plain, warmed = (make_config("set", optimizer="sgd", warmup_epochs=epochs) for epochs in (0.0, 2.0))
    hyper, data = make_hyper(plain), make_data()
    start = compiled(plain).init(hyper, data)
    ends = [compiled(config).steps(start, hyper, data, jnp.int32(1)) for config in (plain, warmed)]
    whole, eighth = (jax.tree.map(jnp.subtract, end.params, start.params) for end in ends)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / 8, b, rtol=1e-3, atol=1e-7), whole, eighth)
