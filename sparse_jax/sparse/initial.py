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
Family = Callable[[jax.Array, Shape, jax.Array, int], Positions]  # (key, shape, connections, slots) -> sorted


def _random(key: jax.Array, shape: Shape, count: jax.Array, slots: int) -> Positions:
    """A uniformly random set of `count` connections."""
    if crowded(shape, slots):
        return best_absent(random_scores(key, shape[1]), jnp.uint32, NOWHERE, count, slots, shape, slots)
    return draw_absent(key, _no_links(shape), jnp.zeros(1, bool), count, slots, shape, None)


def _fan_in(key: jax.Array, shape: Shape, count: jax.Array, slots: int) -> Positions:
    """count / O connections for every output, to a uniformly random set of inputs; count a multiple of O."""
    each = count // shape[1]
    if crowded(shape, slots):
        counts = jnp.full(shape[1], each, jnp.int32)
        return best_absent_by_output(random_scores(key, shape[0]), NOWHERE, counts, slots, shape, slots)
    outputs = jnp.arange(slots, dtype=jnp.int32) // jnp.maximum(each, 1)
    return draw_absent(key, _no_links(shape), jnp.zeros(1, bool), count, slots, shape, outputs)


def _no_links(shape: Shape) -> Links:
    """No connection, in one slot."""
    return make_links(*(jnp.full(1, side, jnp.int32) for side in shape), jnp.int32(0), shape)


INITIAL: dict[str, Family] = {"random": _random, "fan_in": _fan_in}


def first_links(name: str, key: jax.Array, shape: Shape, count: jax.Array, slots: int) -> Links:
    """The first connections of a layer.

    Args:
      name: a key of INITIAL.
      key: a PRNG key.
      shape: (I, O).
      count: int32[], connections, at most the slots and the positions.
      slots: static.
    """
    return make_links(*INITIAL[name](key, shape, count, slots), count, shape)


def at_slots(pairs: jax.Array, slots: int) -> Positions:
    """int32[2, connections], sorted (input, output) of a file, in so many slots; what fills them is ignored."""
    return Positions(*jnp.pad(pairs, ((0, 0), (0, slots - pairs.shape[1]))))
