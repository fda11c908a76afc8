"""Networks: their kernels as known before jax, the seams, and the weight decay of their parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.activations.by_layer import by_layer
from sparse_jax.config import OPTIMIZERS, RunConfig
from sparse_jax.models.mlp import MLP
from sparse_jax.models.registry import MODELS
from sparse_jax.models.shapes import KERNELS
from sparse_jax.topology.masks import name_of
from sparse_jax.training.optimizers import LR_SCHEDULES, make_optimizer

INPUT = (5, 4, 1)


def shapes_of(params):
    return {name_of(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize("name", MODELS)
def test_kernels_are_those_of_the_initialised_model(name):
    config = RunConfig(model=name, hidden_sizes=(7, 6, 3), activation=("srelu",))
    model = MODELS[name](config, 9, by_layer(config.activation, None))
    shapes = shapes_of(model.init(jax.random.key(0), jnp.ones((1, *INPUT)), train=False)["params"])
    kernels = {leaf: shape for leaf, shape in shapes.items() if leaf.endswith("kernel")}
    assert kernels == KERNELS[name](INPUT, config.hidden_sizes, 9)


def test_the_mlp_by_hand():
    model = MLP((2,), 1, lambda i: jnp.tanh, 0.0)
    params = {
        "dense_0": {"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "bias": jnp.array([0.5, 0.0])},
        "output": {"kernel": jnp.array([[3.0], [-1.0]]), "bias": jnp.array([0.25])},
    }
    out = model.apply({"params": params}, jnp.array([[0.1, 0.2]]), train=False)
    np.testing.assert_allclose(out, [[3 * np.tanh(0.6) - np.tanh(0.4) + 0.25]], rtol=1e-6)


def test_every_layer_is_made_through_the_seam():
    made = []

    def linear(name, features):
        made.append((name, features))
        return nn.Dense(features, name=name)

    MLP((7, 6), 3, lambda i: jnp.tanh, 0.0, linear).init(jax.random.key(0), jnp.ones((1, 4)), train=False)
    assert made == [("dense_0", 7), ("dense_1", 6), ("output", 3)]


def test_dropout_is_for_training_and_between_the_layers():
    model = MLP((1000,), 1000, lambda i: lambda x: jnp.ones_like(x), 0.3, lambda name, features: lambda x: x)
    x = jnp.ones((1, 1000))
    np.testing.assert_array_equal(model.apply({}, x, train=False), x)
    dropped = model.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(jnp.unique(dropped), [0, 1 / 0.7], rtol=1e-6)
    assert 0.25 < (dropped == 0).mean() < 0.35


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_kernels_decay(optimizer):
    params = {
        "dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "activation_0": {"t_left": jnp.ones(2)},
    }
    tx = make_optimizer(RunConfig(optimizer=optimizer), jnp.float32(0.1), jnp.float32(0.01))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert (updates["dense_0"]["kernel"] < 0).all()
    assert (updates["dense_0"]["bias"] == 0).all()
    assert (updates["activation_0"]["t_left"] == 0).all()


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, (1 + 2**-0.5) / 2, 1 / 2, (1 - 2**-0.5) / 2]),  # at 0, 1/4, 1/2 and 3/4
        ("step", [1, 1, 0.1, 0.01]),
    ],
)
def test_learning_rates(schedule, factors):
    factor = LR_SCHEDULES[schedule](RunConfig(), 40)
    np.testing.assert_allclose([factor(jnp.int32(step)) for step in (0, 10, 20, 30)], factors, rtol=1e-5)


def test_two_decays_on_one_step_are_two_decays():
    factor = LR_SCHEDULES["step"](RunConfig(lr_decay_at=(0.5, 0.51), lr_decay_factor=0.5), 4)
    np.testing.assert_allclose([factor(jnp.int32(step)) for step in (1, 2)], [1, 0.25])
