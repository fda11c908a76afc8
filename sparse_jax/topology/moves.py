"""The moves of a topology update: prune to a count, remove, grow; and the choice of masks by their scores."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from sparse_jax.topology.criteria import Signals
from sparse_jax.topology.masks import Counts, Masks
from sparse_jax.topology.neurons import places_of
from sparse_jax.topology.pools import Pools, by_group, gather, scatter
from sparse_jax.topology.redistribution import SHARES
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course
from sparse_jax.topology.selection import top_k, top_k_by_group


def drop(groups: tuple[jax.Array, ...], score: jax.Array, fraction: jax.Array) -> jax.Array:
    """The survivors of a drop: of every group the n_g − ⌊ζ n_g⌋ of largest score; ⌊ζ n⌋ in float32.

    Args:
      groups: bool[...] each, a partition of the active connections.
      score: float32[...] or uint32[...], larger is kept.
      fraction: float32[], ζ in [0, 1].

    Returns:
      bool[...].
    """
    survivors = jnp.zeros(score.shape, bool)
    for group in groups:
        size = jnp.sum(group, dtype=jnp.int32)
        dropped = jnp.floor(fraction * size).astype(jnp.int32)
        survivors |= top_k(score, size - dropped, group)
    return survivors


def grow(
    survivors: jax.Array, score: jax.Array, counts: jax.Array, eligible: jax.Array, last: jax.Array | None = None
) -> jax.Array:
    """The survivors and what grows to them: in every group the eligible of largest score, up to its count.

    Args:
      survivors: bool[groups, units].
      score: float32[groups, units] or uint32, larger is grown first.
      counts: int32[groups]; a group that has more survivors grows nothing.
      eligible: bool[groups, units], where something may grow.
      last: bool[groups, units], what of it grows only where there is no other place.

    Returns:
      bool[groups, units].
    """
    for places in (eligible,) if last is None else (eligible & ~last, eligible):
        missing = counts - jnp.sum(survivors, axis=1, dtype=jnp.int32)
        survivors |= top_k_by_group(score, missing, places & ~survivors)
    return survivors


def choose(rule: Rule, scores: Mapping[str, jax.Array], counts: Counts) -> Masks:
    """The connections of largest score, as many as the counts say, within the rule's pattern and scope.

    Args:
      rule: the method.
      scores: float32[...] or uint32[...] by layer.
      counts: int32[] by layer; what the pattern cannot have is left out.
    """
    pools = gather(rule, scores)
    nothing = {name: jnp.zeros(score.shape, bool) for name, score in pools.items()}
    everywhere = {name: ~mask for name, mask in nothing.items()}
    numbers = by_group(rule, counts, everywhere)
    chosen = {name: grow(nothing[name], pools[name], numbers[name], everywhere[name]) for name in pools}
    return scatter(rule, chosen, {name: score.shape for name, score in scores.items()})


def prune(rule: Rule, scores: Pools, counts: Counts, topology: Topology) -> Pools:
    """The active connections, of a method whose counts follow a schedule only so many of largest score."""
    active = gather(rule, topology.masks)
    if rule.count not in ("schedule", "extra"):
        return active
    numbers = by_group(rule, counts, gather(rule, places_of(topology)))
    return {name: top_k_by_group(scores[name], numbers[name], mask) for name, mask in active.items()}


def _groups(rule: Rule, kept: Pools, signals: Mapping[str, Signals]) -> dict[str, tuple[jax.Array, ...]]:
    """Who competes with whom, by pool, within what was kept so far."""
    partition = {name: rule.groups(of_layer) for name, of_layer in signals.items()}
    by_number = [
        gather(rule, dict(zip(partition, masks, strict=True))) for masks in zip(*partition.values(), strict=True)
    ]
    return {name: tuple(pools[name] & mask for pools in by_number) for name, mask in kept.items()}


def _none(rule, course, kept, scores, signals, topology):
    return kept, topology.threshold


def _all(rule, course, kept, scores, signals, topology):
    return {name: jnp.zeros_like(mask) for name, mask in kept.items()}, topology.threshold


def _below_zero(rule, course, kept, scores, signals, topology):
    return {name: mask & (scores[name] >= 0) for name, mask in kept.items()}, topology.threshold


def _fraction(rule, course, kept, scores, signals, topology):
    """A share of every group, but no more than there is room for; layers that share their growth need no room."""
    fraction, groups, survivors = rule.drop_fraction(course.training), _groups(rule, kept, signals), {}
    for name, places in gather(rule, places_of(topology)).items():
        active, size = (jnp.sum(pool, dtype=jnp.int32) for pool in (kept[name], places))
        room = 1.0 if rule.scope in SHARES else (size - active) / jnp.maximum(active, 1)
        survivors[name] = drop(groups[name], scores[name], jnp.minimum(fraction, room))
    return survivors, topology.threshold


def _below_threshold(rule, course, kept, scores, signals, topology):
    """|w| < H in all layers, as DSR (Mostafa and Wang 2019, arXiv:1902.05967, Algorithm 1).

    H doubles if that was less than 0.9 of the number aimed at, and halves if it was more than 1.1 of it; the number
    aimed at is a drop fraction of all connections.
    """
    survivors = {name: mask & (scores[name] >= topology.threshold) for name, mask in kept.items()}
    n, left = (sum(jnp.sum(mask, dtype=jnp.int32) for mask in pools.values()) for pools in (kept, survivors))
    aim = rule.drop_fraction(course.training) * n
    factor = jnp.where(n - left < 0.9 * aim, 2.0, jnp.where(n - left > 1.1 * aim, 0.5, 1.0))
    return survivors, topology.threshold * factor.astype(jnp.float32)


Removal = Callable[
    [Rule, Course, Pools, Pools, Mapping[str, Signals], Topology],  # of these the kept, and their scores
    tuple[Pools, jax.Array],  # survivors, DSR's next threshold
]
REMOVE: dict[str, Removal] = {
    "none": _none,
    "all": _all,
    "fraction": _fraction,
    "below_zero": _below_zero,
    "below_threshold": _below_threshold,
}


def regrow(
    rule: Rule, scores: Pools, survivors: Pools, before: Pools, counts: Counts, places: Pools
) -> Pools:
    """The survivors and what grows to them in `places`, up to the counts; of `before` last, if the rule says so."""
    numbers = by_group(rule, counts, places)
    just_dropped = {} if rule.regrow else {name: before[name] & ~mask for name, mask in survivors.items()}
    return {
        name: grow(mask, scores[name], numbers[name], places[name], just_dropped.get(name))
        for name, mask in survivors.items()
    }
