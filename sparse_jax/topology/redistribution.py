"""Connections that move between layers: how what was dropped in all of them is shared out for growth."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from sparse_jax.topology.criteria import Signals
from sparse_jax.topology.masks import Counts


def _mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, jnp.abs(values), 0)) / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1)


# scope -> (survivors of a layer, its signals before the update) -> its share of the growth, float32[] up to a factor
SHARES: dict[str, Callable[[jax.Array, Signals], jax.Array]] = {
    "momentum": lambda survivors, signals: _mean(signals.momentum, signals.mask),  # Dettmers and Zettlemoyer 2019
    "gradient": lambda survivors, signals: _mean(signals.gradient, signals.mask),
    "survivors": lambda survivors, signals: jnp.sum(survivors, dtype=jnp.float32),  # Mostafa and Wang 2019
}


def share_out(total: jax.Array, shares: jax.Array, room: jax.Array) -> jax.Array:
    """Integers ∝ `shares` that sum to `total` exactly, none above its room.

    A layer whose part would pass its room is filled, and the rest is shared out again among the others; fractions go
    to the largest remainders. Where nothing has a share, the room is the share; what is left once all that have one are
    full goes to the first that have room.

    Args:
      total: int32[], clipped to [0, Σ room].
      shares: float32[layers], not negative; NaN and infinity count as 0.
      room: int32[layers].

    Returns:
      int32[layers].
    """
    total = jnp.clip(total, 0, jnp.sum(room))
    shares = jnp.where((room > 0) & jnp.isfinite(shares), shares, 0)
    shares = jnp.where(jnp.any(shares > 0), shares, room.astype(jnp.float32))
    shares = shares / jnp.maximum(jnp.max(shares), jnp.finfo(jnp.float32).tiny)

    def ideal(full):
        left = total - jnp.sum(jnp.where(full, room, 0))
        open_shares = jnp.where(full, 0, shares)
        return left * open_shares / jnp.maximum(jnp.sum(open_shares), jnp.finfo(jnp.float32).tiny)

    full = jnp.zeros(room.shape, bool)
    for _ in range(room.size):
        full |= ideal(full) >= room
    wanted = jnp.where(full, room, ideal(full))
    whole = jnp.floor(wanted).astype(jnp.int32)
    return _spend(whole, jnp.where(shares > 0, wanted - whole, -1), room, total)


def _spend(counts: jax.Array, remainder: jax.Array, room: jax.Array, total: jax.Array) -> jax.Array:
    """`counts` raised (or, after a rounding of float32, lowered) to sum to the total: one each, then what is left."""
    order = jnp.argsort(-remainder)
    for limit in (1, None):
        for i in range(room.size):
            layer, missing = order[i], total - jnp.sum(counts)
            space = room[layer] - counts[layer]
            extra = jnp.clip(missing, -counts[layer], space if limit is None else jnp.minimum(limit, space))
            counts = counts.at[layer].add(extra)
    return counts


def redistribute(
    shares: Callable, survivors: Mapping[str, jax.Array], signals: Mapping[str, Signals], room: Counts, counts: Counts
) -> Counts:
    """The counts after an update in which the layers share what all of them lack of `counts`.

    Args:
      shares: of SHARES.
      survivors: bool of the kernel's shape, by layer.
      signals: by layer.
      room: int32[] by layer, places where something may grow.
      counts: int32[] by layer, of which only the sum matters.
    """
    names = list(survivors)
    kept = jnp.stack([jnp.sum(survivors[name], dtype=jnp.int32) for name in names])
    parts = jnp.stack([shares(survivors[name], signals[name]) for name in names])
    total = sum(counts[name] for name in names) - jnp.sum(kept)
    after = kept + share_out(total, parts, jnp.stack([room[name] for name in names]))
    return {name: after[i] for i, name in enumerate(names)}
