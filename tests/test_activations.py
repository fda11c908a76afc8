"""Activation functions: values by hand, gradients by differences, and what networks may rely on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sparse_jax.activations.by_layer import ACTIVATIONS, by_layer
from sparse_jax.activations.fixed import all_relu
from sparse_jax.activations.learnable import LEARNABLE, PReLU, SReLU
from sparse_jax.errors import UserError

ALPHA = 0.6
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, section 3

# name -> the values at −2, 0 and 1 in terms of exp, tanh and erf
GOLDEN = {
    "relu": (0, 0, 1),
    "leaky_relu": (-0.02, 0, 1),
    "elu": (math.exp(-2) - 1, 0, 1),
    "selu": (SELU_SCALE * SELU_ALPHA * (math.exp(-2) - 1), 0, SELU_SCALE),
    "gelu": (-1 * (1 + math.erf(-2 / math.sqrt(2))), 0, (1 + math.erf(1 / math.sqrt(2))) / 2),
    "swish": (-2 / (1 + math.exp(2)), 0, 1 / (1 + math.exp(-1))),
    "tanh": (math.tanh(-2), 0, math.tanh(1)),
    "sigmoid": (1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-1))),
    "softsign": (-2 / 3, 0, 1 / 2),
    "softplus": (math.log1p(math.exp(-2)), math.log(2), math.log1p(math.exp(1))),
    "all_relu": (-ALPHA * -2, 0, 1),  # the first hidden layer: slope −α
    "prelu": (0.25 * -2, 0, 1),
    "linear": (-2, 0, 1),
}


class Net(nn.Module):
    """One activation function as the first hidden layer of a model has it."""

    names: tuple[str, ...]
    layer: int = 0

    @nn.compact
    def __call__(self, x):
        return by_layer(self.names, ALPHA)(self.layer)(x)


def apply(name, x, layer=0):
    """The function with its initial parameters."""
    net = Net((name,), layer)
    return net.apply(net.init(jax.random.key(0), x), x)


@pytest.mark.parametrize("name", GOLDEN)
def test_values(name):
    x = jnp.array([[-2.0, 0.0, 1.0]])
    np.testing.assert_allclose(apply(name, x)[0], GOLDEN[name], rtol=2e-6, atol=1e-7)


def test_every_activation_has_values():
    assert set(GOLDEN) | {"srelu"} == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_are_finite_and_right(name):
    x = jnp.linspace(-50, 50, 2001)[None]
    gradient = jax.grad(lambda x: apply(name, x).sum())(x)
    assert jnp.isfinite(apply(name, x)).all()
    assert jnp.isfinite(gradient).all()
    inner = jnp.array([[-3.03, -1.01, -0.49, 0.51, 1.23]])  # away from the kinks
    step = 1e-2
    difference = (apply(name, inner + step) - apply(name, inner - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(lambda x: apply(name, x).sum())(inner), difference, atol=2e-3)


def test_srelu_has_three_pieces_and_two_thresholds():
    # t_l = −1, a_l = 0.5, t_r' = −1 + |3| = 2, a_r = 2: 0.5 (x + 1) − 1 | x | 2 + 2 (x − 2)
    values = {"t_left": -1.0, "a_left": 0.5, "t_right": -3.0, "a_right": 2.0}
    params = {name: jnp.array([value]) for name, value in values.items()}
    x = jnp.array([[-3.0], [-1.0], [0.5], [2.0], [4.0]])
    np.testing.assert_allclose(SReLU().apply({"params": params}, x)[:, 0], [-2, -1, 0.5, 2, 6])


def test_srelu_starts_as_published_with_parameters_for_each_neuron():
    params = SReLU().init(jax.random.key(0), jnp.ones((2, 1000)))["params"]
    assert all(leaf.shape == (1000,) for leaf in params.values())
    assert (params["t_left"] == 0).all()
    assert (params["a_right"] == 1).all()
    for name, high in (("a_left", 1), ("t_right", 5)):
        assert params[name].min() >= 0
        assert params[name].max() <= high
        np.testing.assert_allclose(params[name].mean(), high / 2, rtol=0.1)


def test_prelu_learns_a_slope_for_each_neuron():
    params = {"slope": jnp.array([0.1, -0.2])}
    np.testing.assert_allclose(PReLU().apply({"params": params}, jnp.array([[-1.0, -1.0]])), [[-0.1, 0.2]])


def test_all_relu_alternates_by_layer():
    for layer, slope in enumerate((-0.75, 0.75, -0.75)):
        np.testing.assert_allclose(all_relu(0.75, layer)(jnp.array([-2.0, 3.0])), [slope * -2, 3])


@pytest.mark.parametrize("name", LEARNABLE)
def test_learnable_parameters_are_named_by_layer(name):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            activation = by_layer((name,), None)
            return activation(1)(activation(0)(x))

    assert set(Two().init(jax.random.key(0), jnp.ones((1, 3)))["params"]) == {"activation_0", "activation_1"}


def test_layers_may_differ():
    x = jnp.array([[-1.0, 1.0]])
    names = ("relu", "tanh")
    np.testing.assert_allclose(Net(names, 0).apply({}, x), jax.nn.relu(x))
    np.testing.assert_allclose(Net(names, 1).apply({}, x), jnp.tanh(x))


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="Did you mean 'relu'"):
        by_layer(("reul",), None)
