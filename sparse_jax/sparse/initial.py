"""First connections of a layer, in the memory that they take."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.sparse.growth import (
    Positions,
    Shape,
    best_absent,
    best_absent_by_output,
    crowded,
    draw_absent,
    random_scores,
)
from sparse_jax.sparse.links import Links, make_links

NOWHERE = Positions(np.zeros(0, np.int32), np.zeros(0, np.int32))
Family = Callable[[jax.Array, Shape, int], Positions]  # (key, shape, connections) -> sorted


def _random(key: jax.Array, shape: Shape, count: int) -> Positions:
    """A uniformly random set of `count` connections."""
    if crowded(shape, count):
        return best_absent(random_scores(key, shape[1]), jnp.uint32, NOWHERE, jnp.int32(count), count, shape, count)
    return draw_absent(key, _no_links(shape), jnp.zeros(1, bool), jnp.int32(count), count, shape, None)


def _fan_in(key: jax.Array, shape: Shape, count: int) -> Positions:
    """count / O connections for every output, to a uniformly random set of inputs; count a multiple of O."""
    each = count // shape[1]
    if crowded(shape, count):
        counts = jnp.full(shape[1], each, jnp.int32)
        return best_absent_by_output(random_scores(key, shape[0]), NOWHERE, counts, count, shape, count)
    outputs = jnp.arange(count, dtype=jnp.int32) // each
    return draw_absent(key, _no_links(shape), jnp.zeros(1, bool), jnp.int32(count), count, shape, outputs)


def _no_links(shape: Shape) -> Links:
    """No connection, in one slot."""
    return make_links(*(jnp.full(1, side, jnp.int32) for side in shape), jnp.int32(0), shape)


INITIAL: dict[str, Family] = {"random": _random, "fan_in": _fan_in}


def first_links(name: str, key: jax.Array, shape: Shape, count: int) -> Links:
    """The first connections of a layer.

    Args:
      name: a key of INITIAL.
      key: a PRNG key.
      shape: (I, O).
      count: connections, and the slots that they get; static.
    """
    return make_links(*INITIAL[name](key, shape, count), jnp.int32(count), shape)
