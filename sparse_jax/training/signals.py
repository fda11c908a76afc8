"""What the connections of a trained network do on examples: gradients of the loss, and what goes into every layer."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict
from jax import lax

from sparse_jax.activations.responses import RESPONSES
from sparse_jax.data.batches import Data
from sparse_jax.models.layers import Depthwise
from sparse_jax.topology.masks import Weights, select
from sparse_jax.training.evaluation import batches, rows_of_batch
from sparse_jax.training.parts import Parts, predict

_INPUTS = "mean_inputs"  # sown into the collection that models give an axis for time


def _summed(parts: Parts, data: Data, examples: jax.Array, of_batch: Callable[..., Any]) -> Any:
    """The sum of `of_batch(x, y, counted)` over the batches of the first `examples` rows of the data."""
    start = jnp.int32(0)

    def found(i):
        return of_batch(*rows_of_batch(parts, data, start, examples, i))

    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(found, start))
    return lax.fori_loop(
        0, batches(data, start, examples), lambda i, sums: jax.tree.map(jnp.add, sums, found(i)), nothing
    )


def loss_gradients(parts: Parts, params: Any, model_state: Any, data: Data, examples: jax.Array) -> Weights:
    """The gradient of the mean cross-entropy of the first examples of the training part, of every kernel.

    As the network is evaluated: without augmentation, dropout, label smoothing, or statistics of the batch.

    Args:
      parts: of the run.
      params, model_state: of the network.
      data: the training part first.
      examples: int32[], at least 1.
    """

    def of_batch(x, y, counted):
        def loss(params):
            logits = predict(parts, params, model_state, x)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return jnp.sum(jnp.where(counted, losses, 0))

        return select(jax.grad(loss)(params), parts.problem.kernels)

    sums = _summed(parts, data, examples, of_batch)
    return jax.tree.map(lambda total: total / examples, sums)


def mean_inputs(parts: Parts, params: Any, model_state: Any, data: Data, examples: jax.Array) -> Weights:
    """E|x| of what each connection multiplies, over the first examples of the training part.

    Over the positions of an image and the steps of a sequence, too: every tap of a convolution is taken to see its
    whole channel.

    Arguments as of `loss_gradients`.

    Returns:
      kernel name to float32[..., inputs, 1], or [..., 1, channels] of depthwise convolutions: as the kernel broadcasts.
    """

    def of_batch(x, y, counted):
        def record(call, args, kwargs, context):
            if context.method_name == "__call__" and isinstance(context.module, nn.Dense | nn.Conv | Depthwise):
                context.module.sow(RESPONSES, _INPUTS, _mean(args[0], counted)[None])  # the axis for time is the second
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            _, kept = parts.model.apply({"params": params, **model_state}, x, train=False, mutable=[RESPONSES])
        found = {path[:-1]: uses for path, uses in flatten_dict(kept[RESPONSES]).items() if path[-1] == _INPUTS}
        return {path: sum(uses) / len(uses) for path, uses in found.items()}

    sums = _summed(parts, data, examples, of_batch)
    by_layer = {f"{'/'.join(path)}/kernel": total / examples for path, total in sums.items()}
    return {name: _as_kernel(by_layer[name], shape) for name, shape in parts.problem.kernels.items()}


def _mean(x: jax.Array, counted: jax.Array) -> jax.Array:
    """float32[inputs]: the sum over the examples that count of the mean |x| over positions."""
    of_examples = jnp.abs(x.astype(jnp.float32)).mean(tuple(range(1, x.ndim - 1)))
    return jnp.sum(jnp.where(counted[:, None], of_examples, 0), 0)


def _as_kernel(inputs: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The means of float32[1, inputs], or float32[1, steps, inputs], in a shape that broadcasts to the kernel's."""
    inputs = inputs.mean(tuple(range(inputs.ndim - 1)))
    return inputs if shape[-2] == 1 != inputs.size else inputs[:, None]
