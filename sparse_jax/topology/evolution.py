"""One topology update: drop connections, grow others. A method is a `Rule`, composed of small functions."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.topology.criteria import Signals
from sparse_jax.topology.masks import Counts, Masks, Weights
from sparse_jax.topology.neurons import ablate, cut_off, inputs_of
from sparse_jax.topology.pools import Pools, by_group, gather, scatter
from sparse_jax.topology.redistribution import SHARES, redistribute
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course
from sparse_jax.topology.selection import top_k, top_k_by_group


class EvolutionInfo(NamedTuple):
    """What an update did."""

    survivors: Masks  # active before and kept; a connection dropped and drawn again is new
    moved: jax.Array  # int32[], connections dropped in all layers


def start_topology(rule: Rule, masks: Masks, weights: Weights) -> Topology:
    """The topology of a network that begins with `masks`; `weights` are its initial ones, unmasked."""
    neurons = rule.ablation > 0 or rule.importance_pruning > 0
    topology = Topology(
        masks=masks,
        explored=masks,
        counts={name: jnp.sum(mask, dtype=jnp.int32) for name, mask in masks.items()},
        accuracy=jnp.float32(-1),
        threshold=rule.rates["first_threshold"] if rule.remove == "below_threshold" else jnp.float32(0),
        momentum=jax.tree.map(jnp.zeros_like, weights) if "momentum" in rule.needs else None,
        positive={name: weights[name] >= 0 for name in masks} if "positive" in rule.needs else None,
        latent={name: jnp.where(masks[name], 0, weights[name]) for name in masks} if rule.backward else None,
        backward=None,
        alive={name: jnp.ones(masks[name].shape[-1], bool) for name in masks} if neurons else None,
        lost={name: jnp.int32(0) for name in masks} if neurons else None,
    )
    if not rule.backward:
        return topology
    return topology._replace(backward=_backward(rule, gather(rule, jax.tree.map(jnp.abs, weights)), topology))


def trained(topology: Topology) -> Masks:
    """The connections that an optimiser step changes: those of the masks, or more (Top-KAST)."""
    return topology.masks if topology.backward is None else topology.backward


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


def target_counts(
    rule: Rule, course: Course, accuracy: jax.Array, start: Counts, final: Counts, topology: Topology
) -> tuple[Counts, Counts]:
    """The connections of every layer that an update first prunes to, and those it ends with.

        constant   c, what the layer is entitled to: its first connections, or what came of a redistribution
        schedule   final + [(start − final) density(p)]
        accuracy   max(final, n − [n g])     AccSET [ours]: n is the present count, g the gain in accuracy
        extra      final, then final + ⌊ζ(p) final⌋, but final at the last update     MEST's soft bound

    with [·] rounding to the nearest integer, and less what was lost with neurons that importance pruning cut off.
    """
    if rule.count == "constant":
        return topology.counts, topology.counts
    size = {name: mask.size for name, mask in topology.masks.items()}
    above = {name: start[name] - final[name] for name in final}
    if topology.lost is not None:
        final = {name: jnp.maximum(final[name] - lost, 0) for name, lost in topology.lost.items()}
    if rule.count == "accuracy":
        gain = rule.gain(accuracy, topology.accuracy)
        present = {name: jnp.sum(mask, dtype=jnp.int32) for name, mask in topology.masks.items()}
        less = {name: n - jnp.round(n * gain).astype(jnp.int32) for name, n in present.items()}
        return present, {name: jnp.maximum(final[name], n) for name, n in less.items()}
    if rule.count == "extra":
        share = jnp.where(course.left == 0, 0, rule.drop_fraction(course.updates))
        more = {name: jnp.floor(share * n).astype(jnp.int32) for name, n in final.items()}
        return final, {name: jnp.minimum(final[name] + more[name], size[name]) for name in final}
    ratio = {name: final[name] / jnp.maximum(start[name], 1) for name in final}
    share = {name: rule.density(course, ratio[name]) for name in final}
    counts = {name: final[name] + jnp.round(above[name] * share[name]).astype(jnp.int32) for name in final}
    return counts, counts


def _alive(topology: Topology) -> Masks:
    """Where connections may lie: everywhere, but not into neurons that were cut off."""
    if topology.alive is None:
        return {name: jnp.ones(mask.shape, bool) for name, mask in topology.masks.items()}
    return {name: inputs_of(topology.alive[name], mask) for name, mask in topology.masks.items()}


def _limited(rule: Rule, fraction: jax.Array, mask: jax.Array) -> jax.Array:
    """A drop fraction that drops no more than there is room for; layers that share their growth need no room."""
    if rule.scope in SHARES:
        return fraction
    active = jnp.sum(mask, dtype=jnp.int32)
    return jnp.minimum(fraction, (mask.size - active) / jnp.maximum(active, 1))


def _remove(
    rule: Rule, course: Course, kept: Pools, groups: dict[str, tuple], scores: Pools, topology: Topology
) -> tuple[Pools, jax.Array]:
    """What of `kept` survives, and DSR's next threshold.

    DSR (Mostafa and Wang 2019, arXiv:1902.05967, Algorithm 1) drops |w| < H in all layers, and doubles H if that was
    less than 0.9, halves it if it was more than 1.1 of the number aimed at, which here is a drop fraction of all.
    """
    if rule.remove in ("none", "all"):
        survivors = {name: mask & (rule.remove == "none") for name, mask in kept.items()}
        return survivors, topology.threshold
    if rule.remove == "below_zero":
        return {name: mask & (scores[name] >= 0) for name, mask in kept.items()}, topology.threshold
    fraction = rule.drop_fraction(course.training)
    if rule.remove == "fraction":
        limited = {name: _limited(rule, fraction, mask) for name, mask in kept.items()}
        return {name: drop(groups[name], scores[name], limited[name]) for name in kept}, topology.threshold
    survivors = {name: mask & (scores[name] >= topology.threshold) for name, mask in kept.items()}
    n, left = (sum(jnp.sum(mask, dtype=jnp.int32) for mask in pools.values()) for pools in (kept, survivors))
    aim = fraction * n
    factor = jnp.where(n - left < 0.9 * aim, 2.0, jnp.where(n - left > 1.1 * aim, 0.5, 1.0))
    return survivors, topology.threshold * factor.astype(jnp.float32)


def _backward(rule: Rule, scores: Pools, topology: Topology) -> Masks:
    """The masks and, up to a multiple of their number, the other connections of largest |w| (Jayakumar et al. 2020)."""
    masks = gather(rule, topology.masks)
    everywhere = {name: jnp.ones_like(mask) for name, mask in masks.items()}
    factor = rule.rates["backward_factor"]
    wide = {
        name: jnp.minimum(jnp.round(factor * jnp.sum(mask, dtype=jnp.int32)), mask.size).astype(jnp.int32)
        for name, mask in topology.masks.items()
    }
    counts = by_group(rule, wide, everywhere)
    pools = {name: grow(masks[name], scores[name], counts[name], everywhere[name]) for name in masks}
    return scatter(rule, pools, {name: mask.shape for name, mask in topology.masks.items()})


def evolve(
    rule: Rule,
    key: jax.Array,
    course: Course,
    accuracy: jax.Array,
    start: Counts,
    final: Counts,
    topology: Topology,
    weights: Weights,
    gradients: Weights | None,
) -> tuple[Topology, EvolutionInfo]:
    """One topology update of a network.

    Args:
      rule: the method.
      key: a PRNG key, used for nothing else.
      course: where in training the update stands.
      accuracy: float32[], of the validation part; used where the counts depend on it.
      start: int32[] by layer, connections at the first step; used by schedules.
      final: int32[] by layer, connections aimed at; not used under a constant count.
      topology: before the update.
      weights: float[...] by layer, zero outside the masks.
      gradients: dense gradients of the loss at these weights, or None if the rule needs none.

    Returns:
      The new topology and what was done.
    """
    before, shapes = topology.masks, {name: mask.shape for name, mask in topology.masks.items()}
    if rule.importance_pruning:
        topology = cut_off(rule, course, topology, weights)
    signals = _signals(rule, topology, weights, gradients)
    layer_keys = zip(sorted(signals), jax.random.split(key, len(signals)), strict=True)
    keys = {name: jax.random.split(layer_key) for name, layer_key in layer_keys}
    drop_scores = gather(rule, {name: rule.drop.score(keys[name][0], signals[name]) for name in signals})
    grow_scores = gather(rule, {name: rule.grow.score(keys[name][1], signals[name]) for name in signals})
    places = gather(rule, _alive(topology))
    pruned_to, counts = target_counts(rule, course, accuracy, start, final, topology)

    kept = gather(rule, topology.masks)
    if rule.count in ("schedule", "extra"):  # down to the count first; what then moves is a share of that
        numbers = by_group(rule, pruned_to, places)
        kept = {name: top_k_by_group(drop_scores[name], numbers[name], mask) for name, mask in kept.items()}
    partition = {name: rule.groups(signals[name]._replace(mask=topology.masks[name])) for name in signals}
    groups = _pooled_groups(rule, partition, kept)
    survivors, threshold = _remove(rule, course, kept, groups, drop_scores, topology)
    if rule.ablation:
        topology = ablate(rule, grow_scores, survivors, counts, topology)
        places = gather(rule, _alive(topology))
        survivors = {name: mask & places[name] for name, mask in survivors.items()}
    if rule.scope in SHARES:
        room = {name: jnp.sum(places[name] & ~mask, dtype=jnp.int32) for name, mask in survivors.items()}
        counts = redistribute(SHARES[rule.scope], scatter(rule, survivors, shapes), signals, room, counts)
    numbers = by_group(rule, counts, places)
    just_dropped = {} if rule.regrow else {name: kept[name] & ~mask for name, mask in survivors.items()}
    pools = {
        name: grow(mask, grow_scores[name], numbers[name], places[name], just_dropped.get(name))
        for name, mask in survivors.items()
    }
    masks = scatter(rule, pools, shapes)
    topology = topology._replace(
        masks=masks,
        explored={name: topology.explored[name] | masks[name] for name in masks},
        counts=counts if rule.scope in SHARES and rule.count == "constant" else topology.counts,
        threshold=threshold,
    )
    kept_weights = (
        {n: before[n] & masks[n] for n in masks} if rule.remove == "all" else scatter(rule, survivors, shapes)
    )
    if rule.backward:
        topology = topology._replace(backward=_backward(rule, grow_scores, topology))
    lost = [jnp.sum(before[name] & ~kept_weights[name], dtype=jnp.int32) for name in masks]
    return topology, EvolutionInfo(kept_weights, sum(lost, jnp.int32(0)))


def _signals(rule: Rule, topology: Topology, weights: Weights, gradients: Weights | None) -> dict[str, Signals]:
    """What the criteria see of every layer. Top-KAST's see the values of the connections that are not used, too."""
    seen = weights
    if topology.latent is not None:
        seen = {name: weights[name] + topology.latent[name] for name in topology.masks}
    return {
        name: Signals(
            weight=seen[name],
            mask=mask,
            explored=topology.explored[name],
            gradient=gradients[name] if "gradient" in rule.needs else None,
            momentum=topology.momentum[name] if "momentum" in rule.needs else None,
            positive=topology.positive[name] if "positive" in rule.needs else None,
            rates=rule.rates,
        )
        for name, mask in topology.masks.items()
    }


def _pooled_groups(rule: Rule, partition: Mapping[str, tuple[jax.Array, ...]], kept: Pools) -> dict[str, tuple]:
    """The groups of all layers by pool, within what was kept so far."""
    by_number = [
        gather(rule, dict(zip(partition, masks, strict=True))) for masks in zip(*partition.values(), strict=True)
    ]
    return {name: tuple(pools[name] & mask for pools in by_number) for name, mask in kept.items()}
