"""Activation functions with trainable parameters: linen modules, never masked and without weight decay."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def _uniform(low: float, high: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, low, high)


def _per_neuron(module: nn.Module, name: str, init: nn.initializers.Initializer, x: jax.Array) -> jax.Array:
    """A parameter for each entry of the last axis of x, with the rank of x."""
    value = module.param(name, init, x.shape[-1:])
    return value.reshape((1,) * (x.ndim - 1) + value.shape)


class SReLU(nn.Module):
    """S-shaped ReLU, four parameters a neuron (Jin et al. 2016, arXiv:1512.07030, eq. 1).

        y = t_r' + a_r (x − t_r')  for x ≥ t_r',      t_r' = t_l + |t_r|
            x                      between
            t_l + a_l (x − t_l)    for x ≤ t_l

    The start t_l = 0, a_l ~ U(0, 1), t_r ~ U(0, 5), a_r = 1 and the form of t_r', which keeps it right of
    t_l, are those of the code of Mocanu et al. 2018; Jin et al. freeze the start for some epochs instead.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        t_left = _per_neuron(self, "t_left", nn.initializers.zeros, x)
        a_left = _per_neuron(self, "a_left", _uniform(0, 1), x)
        t_right = t_left + jnp.abs(_per_neuron(self, "t_right", _uniform(0, 5), x))
        a_right = _per_neuron(self, "a_right", nn.initializers.ones, x)
        left = t_left + a_left * (x - t_left)
        right = t_right + a_right * (x - t_right)
        return jnp.where(x <= t_left, left, jnp.where(x >= t_right, right, x))


class PReLU(nn.Module):
    """x for x > 0, else a x, with a slope a per neuron from 0.25 on (He et al. 2015, arXiv:1502.01852)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = _per_neuron(self, "slope", nn.initializers.constant(0.25), x)
        return jnp.where(x > 0, x, slope * x)


LEARNABLE: dict[str, type[nn.Module]] = {"srelu": SReLU, "prelu": PReLU}
