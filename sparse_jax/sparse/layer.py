"""A dense layer of linen that has its connections only."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers

from sparse_jax.sparse.draws import weights_at
from sparse_jax.sparse.evolution import in_use
from sparse_jax.sparse.links import Links, inputs_of_slots
from sparse_jax.sparse.products import multiply

LINKS, INPUTS, PROBES = "links", "inputs", "probes"  # collections of variables
KERNEL = "kernel"


def nested(by_layer: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A collection of variables of what is given by layer, as in "dense_0/kernel"."""
    return {name.removesuffix(f"/{KERNEL}"): {KERNEL: value} for name, value in by_layer.items()}


def flat(collection: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The inverse of `nested`."""
    return {f"{name}/{KERNEL}": variables[KERNEL] for name, variables in collection.items()}


def first_values(key: jax.Array, initializer: str, links: Links, shape: tuple[int, int]) -> jax.Array:
    """float32[capacity]: what a dense kernel of `shape` begins with where the connections are, zero of empty slots."""
    drawn = weights_at(initializer, key, inputs_of_slots(links), links.outputs, shape)
    return jnp.where(in_use(links), drawn, 0)


def fan_scale(links: Links, before: Links, both_fans: bool) -> jax.Array:
    """float32[capacity], `topology.birth.fan_scale` at `links`; what is active is that of `before`."""
    into, out = (jnp.diff(starts).astype(jnp.float32) for starts in (before.output_starts, before.input_starts))
    inputs, outputs = jnp.minimum(inputs_of_slots(links), out.size - 1), jnp.minimum(links.outputs, into.size - 1)
    if not both_fans:
        return jnp.sqrt(out.size / jnp.maximum(into[outputs], 1))
    active = (into[outputs] + out[inputs]) / 2
    return jnp.sqrt((into.size + out.size) / 2 / jnp.maximum(active, 1))


class SparseDense(nn.Module):
    """x W + b over the last axis, in the time and the memory of the connections of W.

    The parameter `kernel`, float32[capacity], has their weights. Where they are is the variable `kernel` of the
    collection LINKS, which has to be given. Of the optional collections, PROBES are added to the product, and into
    INPUTS goes what is multiplied: of both, features come before examples.

    Attributes:
      features: outputs.
      use_bias: whether b is there.
      initializer: a key of `draws.DRAWS`; b starts at 0.
      dtype: of what comes out; the product is of float32.
    """

    features: int
    use_bias: bool
    initializer: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        links, shape = self.get_variable(LINKS, KERNEL), (x.shape[-1], self.features)
        values = self.param(KERNEL, first_values, self.initializer, links, shape)
        inputs = x.reshape(-1, shape[0]).astype(jnp.float32).T
        if self.is_mutable_collection(INPUTS):
            self.put_variable(INPUTS, KERNEL, inputs)
        y = multiply(values, links, inputs)
        if self.has_variable(PROBES, KERNEL):
            y = y + self.get_variable(PROBES, KERNEL)
        y = y.T.reshape(*x.shape[:-1], self.features).astype(self.dtype)
        if not self.use_bias:
            return y
        bias = self.param("bias", initializers.zeros, (self.features,)).astype(self.dtype)
        return y + jnp.broadcast_to(bias, y.shape)


def sparse_where(
    names: Mapping[str, Any], otherwise: Callable[[str, int, bool], nn.Module], initializer: str, dtype: jnp.dtype
) -> Callable[[str, int, bool], nn.Module]:
    """The maker of dense layers of `models.layers.Layers` that makes those named sparse."""

    def dense(name: str, features: int, bias: bool) -> nn.Module:
        if f"{name}/{KERNEL}" in names:
            return SparseDense(features, bias, initializer, dtype, name=name)
        return otherwise(name, features, bias)

    return dense
