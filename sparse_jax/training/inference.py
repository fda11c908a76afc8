"""A trained network as a function of raw inputs, in programs that run on any device."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparse_jax.config import RunConfig
from sparse_jax.data.normalization import Normalization, make_apply
from sparse_jax.models.layers import DTYPES
from sparse_jax.sparse.layer import KERNEL, LINKS
from sparse_jax.sparse.products import multiply
from sparse_jax.training.parts import as_logits, functions_of, make_network
from sparse_jax.training.problem import Problem

FORMULATION = "jax"  # of sparse products: the C++ kernel is there in this process only
PLATFORMS = ("cpu", "cuda", "tpu")


def make_inference(
    config: RunConfig,
    problem: Problem,
    widths: Mapping[str, int],
    normalization: Normalization,
    params: Any,
    model_state: Any,
) -> Callable[[jax.Array], jax.Array]:
    """The function (x[batch, ...], raw) -> float32[batch, classes], the logits as in evaluation.

    Args:
      config: resolved.
      problem: of the configuration.
      widths: outputs of dense layers, by kernel, that are not those of the configuration.
      normalization: fitted to the training part.
      params, model_state: of the network.
    """
    compute = DTYPES[config.dtype]

    def dense(name: str, features: int, bias: bool) -> nn.Module:
        kernel = f"{name}/{KERNEL}"
        if kernel in problem.slots:
            return _SparseProduct(bias, compute, name=name)
        zeros, features = nn.initializers.zeros, widths.get(kernel, features)  # others divide by the number of inputs
        return nn.Dense(features, use_bias=bias, kernel_init=zeros, dtype=compute, name=name)

    model = make_network(config, problem, functions_of(config), dense)
    normalize, variables = make_apply(config.normalization), {"params": params, **model_state}

    def logits(x: jax.Array) -> jax.Array:
        return as_logits(config, model.apply(variables, normalize(normalization, x), train=False))

    if not problem.slots:
        return logits
    # one example after the other: the memory of a sparse product grows with its examples, however many there will be
    return lambda x: jax.lax.map(lambda example: logits(example[None])[0], x)


class _SparseProduct(nn.Module):
    """What `sparse.layer.SparseDense` computes, of as many inputs and outputs as its connections have."""

    use_bias: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        links = self.get_variable(LINKS, KERNEL)
        inputs = x.reshape(math.prod(x.shape[:-1]), links.shape[0]).astype(jnp.float32).T  # -1 fails without inputs
        y = multiply(self.get_variable("params", KERNEL), links, inputs, FORMULATION)
        y = y.T.reshape(*x.shape[:-1], links.shape[1]).astype(self.dtype)
        if not self.use_bias:
            return y
        return y + jnp.broadcast_to(self.get_variable("params", "bias").astype(self.dtype), y.shape)


class _Nonlinearity(nn.Module):
    """The activation function of one layer of a network, under the name that its parameters have there."""

    config: RunConfig
    layer: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return functions_of(self.config)(self.layer)(x)


def activate(config: RunConfig, params: Any, layer: int, x: jax.Array) -> jax.Array:
    """float32[n]: the activation function of a layer, by its index, at one value for each of its n neurons."""
    x = jnp.asarray(x, DTYPES[config.dtype])
    name = f"activation_{layer}"
    variables = {"params": {name: params[name]}} if name in params else {}
    return _Nonlinearity(config, layer).apply(variables, x[None])[0].astype(jnp.float32)


def export_inference(inference: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: Any) -> bytes:
    """A program for PLATFORMS that `jax.export.deserialize` reads, for any number of examples of a shape and dtype."""
    (batch,) = jax.export.symbolic_shape("batch")
    example = jax.ShapeDtypeStruct((batch, *shape), dtype)
    return bytes(jax.export.export(jax.jit(inference), platforms=PLATFORMS)(example).serialize())
