"""Activation functions without parameters of their own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]


def linear(x: jax.Array) -> jax.Array:
    """x."""
    return x


def all_relu(alpha: float, layer: int) -> Activation:
    """All-ReLU: x for x > 0, else ∓α x, alternating by layer (Curci et al. 2021, arXiv:2102.01732).

    The slope of the negative side is −α in the first hidden layer (`layer` 0), +α in the second, and so on.
    """
    slope = -alpha if layer % 2 == 0 else alpha
    return lambda x: jnp.where(x > 0, x, slope * x)


FIXED: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,  # slope 0.01
    "elu": jax.nn.elu,  # alpha 1
    "selu": jax.nn.selu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "swish": jax.nn.swish,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softsign": jax.nn.soft_sign,
    "softplus": jax.nn.softplus,
    "linear": linear,
}
