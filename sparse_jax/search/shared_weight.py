"""What a network makes of its inputs if all its connections have one and the same weight."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.activations.fixed import FIXED
from sparse_jax.config import WANN_FUNCTIONS
from sparse_jax.search.genome import Genome
from sparse_jax.search.places import Places

WORST = 1e6  # a loss that is larger, or not finite, counts as this


class Scores(NamedTuple):
    """Of one network, at every shared weight."""

    accuracy: jax.Array  # float32[weights]
    loss: jax.Array  # float32[weights], mean cross entropy


def logits(places: Places, genome: Genome, x: jax.Array, weights: jax.Array) -> jax.Array:
    """float32[outputs, weights, examples], the outputs of the network at every shared weight w.

        z = w Σ over enabled connections of what they bring,  h = f(z);  the outputs are their z

    computed layer by layer. What the inputs bring is the same for all weights, up to w.

    Args:
      places: of the genome.
      genome: one network.
      x: float32[inputs, examples].
      weights: float32[weights].
    """
    matrix = genome.enabled.astype(x.dtype)
    direct = jnp.einsum("st,sn->tn", matrix[: places.inputs], x)
    matrix, scale = matrix[places.inputs :], weights[None, :, None]
    hidden = jnp.zeros((0, weights.size, x.shape[1]), x.dtype)
    for layer in range(places.layers + 1):
        begin = layer * places.width
        end = begin + places.width if layer < places.layers else begin + places.outputs
        z = scale * (direct[begin:end, None] + jnp.einsum("st,swn->twn", matrix[:begin, begin:end], hidden))
        if layer < places.layers:
            hidden = jnp.concatenate([hidden, *_activated(z)])
    return z


def _activated(z: jax.Array) -> list[jax.Array]:
    """The values of a layer's slots, by function."""
    blocks = jnp.split(z, len(WANN_FUNCTIONS))
    return [FIXED[name](block) for name, block in zip(WANN_FUNCTIONS, blocks, strict=True)]


def scores(z: jax.Array, y: jax.Array) -> Scores:
    """Accuracy and loss of outputs float32[outputs, weights, examples] for the labels int32[examples]."""
    right = jnp.argmax(z, axis=0) == y[None]
    chosen = jnp.take_along_axis(jax.nn.log_softmax(z, axis=0), y[None, None], axis=0)[0]
    loss = -jnp.mean(chosen, axis=1)
    return Scores(jnp.mean(right, axis=1, dtype=z.dtype), jnp.where(loss < WORST, loss, WORST))


def vote(z: jax.Array) -> jax.Array:
    """int32[examples], the class that most weights name; of equal numbers the lower class.

    Args:
      z: float32[outputs, weights, examples], of `logits`.
    """
    ballots = jax.nn.one_hot(jnp.argmax(z, axis=0), z.shape[0], axis=0, dtype=jnp.int32)
    return jnp.argmax(jnp.sum(ballots, axis=1), axis=0).astype(jnp.int32)
