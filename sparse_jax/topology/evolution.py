"""One topology update: drop connections, grow as many. A method is a `Rule`, composed of small functions."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.topology import criteria
from sparse_jax.topology.criteria import Score, Signals
from sparse_jax.topology.masks import Counts, Masks, Weights
from sparse_jax.topology.selection import top_k


class Rule(NamedTuple):
    """A method of topology evolution, for one run.

    The first four fields say what an update does to a layer, the next three how training makes room for it,
    the last declares what the law suite may rely on.
    """

    drop: Score
    grow: Score
    drop_fraction: Callable[[jax.Array], jax.Array]  # progress in [0, 1] -> fraction in [0, 1]
    groups: Callable[[Signals], tuple[jax.Array, ...]]
    needs_gradient: bool
    update: Literal["never", "after_step", "instead_of_step"]
    masked: bool = True  # False: the method has no masks at all
    count: Literal["layer"] = "layer"  # invariant: every layer keeps its count


class EvolutionInfo(NamedTuple):
    """What an update did."""

    survivors: Masks  # active before and kept; a connection dropped and drawn again is new
    moved: jax.Array  # int32[], connections dropped (and grown) in all layers


def drop_and_grow(
    groups: tuple[jax.Array, ...],
    drop_score: jax.Array,
    grow_score: jax.Array,
    fraction: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Replace the lowest-scoring share of one layer's active connections.

        ζ         = min(fraction, room / n),  room = size − n
        survivors = ∪_g the n_g − ⌊ζ n_g⌋ connections of group g of largest drop_score
        mask      = survivors ∪ the count − |survivors| connections outside them of largest grow_score

    A connection dropped here may grow back at once, as in the reference codes of SET and RigL (Mocanu et al.
    2018, arXiv:1707.04780; Evci et al. 2020, arXiv:1911.11134, Algorithm 1). Never more moves than the layer
    has room for, so that a dense layer moves nothing; the references exempt dense layers by hand. ⌊ζ n⌋ is
    computed in float32.

    Args:
      groups: bool[...] each, a partition of the active connections.
      drop_score: float32[...] or uint32[...], larger is kept.
      grow_score: float32[...] or uint32[...], larger is grown; ignored for survivors.
      fraction: float32[], in [0, 1].
      count: int32[], connections of the layer after the update.

    Returns:
      The new mask and the survivors, bool[...] each.
    """
    sizes = [jnp.sum(group, dtype=jnp.int32) for group in groups]
    active = sum(sizes)
    room = (grow_score.size - active) / jnp.maximum(active, 1)
    fraction = jnp.minimum(fraction, room)
    survivors = jnp.zeros(grow_score.shape, bool)
    for group, size in zip(groups, sizes, strict=True):
        dropped = jnp.floor(fraction * size).astype(jnp.int32)
        survivors |= top_k(drop_score, size - dropped, group)
    grown = top_k(grow_score, count - jnp.sum(survivors, dtype=jnp.int32), ~survivors)
    return survivors | grown, survivors


def evolve(
    rule: Rule,
    key: jax.Array,
    progress: jax.Array,
    counts: Counts,
    masks: Masks,
    weights: Weights,
    gradients: Weights | None,
) -> tuple[Masks, EvolutionInfo]:
    """One topology update of a network.

    Args:
      rule: the method.
      key: a PRNG key, used for nothing else.
      progress: float32[], 0 at the first step and 1 where updates stop.
      counts: int32[] by layer, connections after the update.
      masks: bool[...] by layer.
      weights: float[...] by layer, zero outside the masks.
      gradients: dense gradients of the loss at these weights, or None if the rule needs none.

    Returns:
      The new masks and what was done.
    """
    fraction = rule.drop_fraction(progress)
    new, survivors = {}, {}
    for layer_key, name in zip(jax.random.split(key, len(masks)), sorted(masks), strict=True):
        drop_key, grow_key = jax.random.split(layer_key)
        signals = Signals(weights[name], masks[name], gradients[name] if rule.needs_gradient else None)
        new[name], survivors[name] = drop_and_grow(
            rule.groups(signals),
            rule.drop(drop_key, signals),
            rule.grow(grow_key, signals),
            fraction,
            counts[name],
        )
    lost = [jnp.sum(masks[name] & ~survivors[name], dtype=jnp.int32) for name in masks]
    return new, EvolutionInfo(survivors, sum(lost, jnp.int32(0)))


Fraction = Callable[[jax.Array], jax.Array]


def dense(fraction: Fraction) -> Rule:
    """No masks: every connection is trained."""
    return static(fraction)._replace(masked=False)


def static(fraction: Fraction) -> Rule:
    """The initial topology for good: SET with a drop fraction of 0 (FixProb in Mocanu et al. 2018)."""
    return set_magnitude(jnp.zeros_like)._replace(update="never")


def set_magnitude(fraction: Fraction) -> Rule:
    """SET as most ports have it: drop the smallest |w| of the layer, grow at random."""
    return Rule(criteria.magnitude, criteria.random, fraction, criteria.whole, False, "after_step")


def set_per_sign(fraction: Fraction) -> Rule:
    """SET (Mocanu et al. 2018): drop the smallest positive and, separately, the largest negative weights.

    The reference drops every weight that is exactly zero besides; here zeros count as positive and go first.
    """
    return set_magnitude(fraction)._replace(groups=criteria.by_sign)


def rigl(fraction: Fraction) -> Rule:
    """RigL (Evci et al. 2020): drop the smallest |w|, grow the largest |gradient|; no optimiser step."""
    return Rule(criteria.magnitude, criteria.gradient, fraction, criteria.whole, True, "instead_of_step")


METHODS: dict[str, Callable[[Fraction], Rule]] = {
    "dense": dense,
    "static": static,
    "set": set_per_sign,
    "set_magnitude": set_magnitude,
    "rigl": rigl,
}
