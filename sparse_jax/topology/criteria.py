"""Drop and grow scores of one layer; a connection of larger score is kept, or grown, first."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Signals(NamedTuple):
    """What a criterion may look at, all of the shape of the layer's kernel."""

    weight: jax.Array
    mask: jax.Array
    explored: jax.Array  # bool, active now or at any time before
    gradient: jax.Array | None  # of the loss, dense, at the masked weights; None if the rule needs none


Score = Callable[[jax.Array, Signals], jax.Array]  # (key, signals) -> float32[...] or uint32[...]


def magnitude(key: jax.Array, signals: Signals) -> jax.Array:
    """|w|."""
    return jnp.abs(signals.weight)


def gradient(key: jax.Array, signals: Signals) -> jax.Array:
    """|∂L/∂w| at the masked weights (Evci et al. 2020)."""
    return jnp.abs(signals.gradient)


def random(key: jax.Array, signals: Signals) -> jax.Array:
    """Uniform: 32 random bits each. A float32 draw has only 2^23 values, and ties favour low indices."""
    return jax.random.bits(key, signals.mask.shape, jnp.uint32)


def unexplored(key: jax.Array, signals: Signals) -> jax.Array:
    """Uniform among the connections that were never active, then among the others (Liu et al. 2021)."""
    bits = jax.random.bits(key, signals.mask.shape, jnp.uint32) >> 1
    return jnp.where(signals.explored, bits, bits | jnp.uint32(1 << 31))


def whole(signals: Signals) -> tuple[jax.Array, ...]:
    """One group: all active connections compete."""
    return (signals.mask,)


def by_sign(signals: Signals) -> tuple[jax.Array, ...]:
    """Two groups, w ≥ 0 and w < 0. New links, exactly zero, count as positive."""
    negative = signals.mask & (signals.weight < 0)
    return signals.mask & ~negative, negative
