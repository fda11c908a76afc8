"""One topology update: drop connections, grow others. A method is a `Rule`, composed of small functions."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.topology.counts import target_counts
from sparse_jax.topology.criteria import Criterion, Signals
from sparse_jax.topology.masks import Counts, Masks, Weights
from sparse_jax.topology.moves import REMOVE, grow, prune, regrow
from sparse_jax.topology.neurons import ablate, cut_off, places_of
from sparse_jax.topology.pools import Pools, by_group, gather, scatter
from sparse_jax.topology.redistribution import SHARES, redistribute
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course


class EvolutionInfo(NamedTuple):
    """What an update did."""

    survivors: Masks  # active before and kept; a connection dropped and drawn again is new
    moved: jax.Array  # int32[], connections dropped in all layers


def start_topology(rule: Rule, masks: Masks, weights: Weights) -> Topology:
    """The topology of a network that begins with `masks`; `weights` are its initial ones, unmasked."""
    neurons = rule.ablation > 0 or rule.importance_pruning > 0
    averaged = "momentum" in rule.needs
    topology = Topology(
        masks=masks,
        explored=masks,
        counts={name: jnp.sum(mask, dtype=jnp.int32) for name, mask in masks.items()},
        accuracy=jnp.float32(-1),
        threshold=rule.rates["first_threshold"] if rule.remove == "below_threshold" else jnp.float32(0),
        momentum={name: jnp.zeros(w.shape, jnp.float32) for name, w in weights.items()} if averaged else None,
        positive={name: weights[name] >= 0 for name in masks} if "positive" in rule.needs else None,
        latent={name: jnp.where(masks[name], 0, weights[name]) for name in masks} if rule.backward else None,
        backward=None,
        alive={name: jnp.ones(masks[name].shape[-1], bool) for name in masks} if neurons else None,
    )
    if not rule.backward:
        return topology
    return topology._replace(backward=_backward(rule, gather(rule, jax.tree.map(jnp.abs, weights)), topology))


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


def _keys(key: jax.Array, names: Iterable[str]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Two keys for every layer, by its place among the sorted names: one to drop by, one to grow by."""
    names = sorted(names)
    pairs = [jax.random.split(layer_key) for layer_key in jax.random.split(key, len(names))]
    return tuple({name: pair[i] for name, pair in zip(names, pairs, strict=True)} for i in range(2))


def _scores(rule: Rule, criterion: Criterion, keys: dict[str, jax.Array], signals: Mapping[str, Signals]) -> Pools:
    """The scores of all layers."""
    return gather(rule, {name: criterion.score(keys[name], of_layer) for name, of_layer in signals.items()})


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
    drop_keys, grow_keys = _keys(key, signals)
    drop_scores = _scores(rule, rule.drop, drop_keys, signals)
    pruned_to, counts = target_counts(rule, course, accuracy, start, final, topology)

    kept = prune(rule, drop_scores, pruned_to, topology)  # what then moves is a share of that
    survivors, threshold = REMOVE[rule.remove](rule, course, kept, drop_scores, signals, topology)
    left = scatter(rule, survivors, shapes)
    signals_left = {name: of_layer._replace(mask=left[name]) for name, of_layer in signals.items()}
    grow_scores = _scores(rule, rule.grow, grow_keys, signals_left)
    if rule.ablation:
        topology = ablate(rule, grow_scores, survivors, counts, topology)
    places = gather(rule, places_of(topology))
    survivors = {name: mask & places[name] for name, mask in survivors.items()}
    survived = scatter(rule, survivors, shapes)
    if rule.scope in SHARES:
        room = {name: jnp.sum(places[name] & ~mask, dtype=jnp.int32) for name, mask in survivors.items()}
        counts = redistribute(SHARES[rule.scope], survived, signals, room, counts)
    masks = survived
    if rule.grows:
        masks = scatter(rule, regrow(rule, grow_scores, survivors, gather(rule, before), counts, places), shapes)
    topology = topology._replace(masks=masks, threshold=threshold)
    return _concluded(rule, topology, before, survived, counts, grow_scores)


def _concluded(
    rule: Rule, topology: Topology, before: Masks, survived: Masks, counts: Counts, grow_scores: Pools
) -> tuple[Topology, EvolutionInfo]:
    """The topology with what follows from its new masks, and what became of those before."""
    masks = topology.masks
    topology = topology._replace(
        explored={name: topology.explored[name] | mask for name, mask in masks.items()},
        counts=counts if rule.scope in SHARES else topology.counts,
    )
    if rule.backward:  # the masks were chosen anew: what was in them before has survived
        survived = {name: before[name] & mask for name, mask in masks.items()}
        topology = topology._replace(backward=_backward(rule, grow_scores, topology))
    moved = sum((jnp.sum(before[name] & ~survived[name], dtype=jnp.int32) for name in masks), jnp.int32(0))
    return topology, EvolutionInfo(survived, moved)
