"""One topology update: drop connections, grow others. A method is a `Rule`, composed of small functions."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.topology.criteria import Score, Signals
from sparse_jax.topology.masks import Counts, Masks, Weights
from sparse_jax.topology.selection import top_k


class Rule(NamedTuple):
    """A method of topology evolution, for one run.

    The first four fields say what an update does to a layer, the next three how many connections it leaves, the
    others how training makes room for it. `count` and `grows` are also what the law suite goes by.
    """

    drop: Score
    grow: Score
    drop_fraction: Callable[[jax.Array], jax.Array]  # progress in [0, 1] -> fraction in [0, 1]
    groups: Callable[[Signals], tuple[jax.Array, ...]]
    count: Literal["constant", "schedule", "accuracy"]
    density: Callable[[jax.Array], jax.Array]  # of a schedule: progress -> share of start − final still there
    gain: Callable[[jax.Array, jax.Array], jax.Array]  # of accuracy: (accuracy, best before) -> g
    needs_gradient: bool
    update: Literal["never", "after_step", "instead_of_step"]
    grows: bool = True  # False: new masks lie within the old ones
    masked: bool = True  # False: the method has no masks at all


class Topology(NamedTuple):
    """The masks of a network and what is remembered of earlier ones."""

    masks: Masks  # empty for a dense network
    explored: Masks  # active now or at any time before
    accuracy: jax.Array  # float32[], the best at earlier updates; -1 if none


class EvolutionInfo(NamedTuple):
    """What an update did."""

    survivors: Masks  # active before and kept; a connection dropped and drawn again is new
    moved: jax.Array  # int32[], connections dropped in all layers


def start_topology(masks: Masks) -> Topology:
    """The topology of a network that begins with `masks`."""
    return Topology(masks, masks, jnp.float32(-1))


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


def target_counts(
    rule: Rule, course: jax.Array, accuracy: jax.Array, start: Counts, final: Counts, topology: Topology
) -> Counts:
    """The connections of every layer after an update.

        constant   final
        schedule   final + [(start − final) density(p)]
        accuracy   max(final, n − [n g])      AccSET [ours]: n is the present count, g the gain in accuracy

    with [·] rounding to the nearest integer.

    Args:
      rule: the method.
      course: float32[], 0 at the first step and 1 at the last update.
      accuracy: float32[], of the validation part; used where the counts depend on it.
      start: int32[] by layer, connections at the first step.
      final: int32[] by layer, connections aimed at.
      topology: before the update.
    """
    if rule.count == "constant":
        return final
    if rule.count == "schedule":
        share = rule.density(course)
        return {name: final[name] + jnp.round((start[name] - final[name]) * share).astype(jnp.int32) for name in final}
    gain = rule.gain(accuracy, topology.accuracy)
    present = {name: jnp.sum(mask, dtype=jnp.int32) for name, mask in topology.masks.items()}
    return {name: jnp.maximum(final[name], n - jnp.round(n * gain).astype(jnp.int32)) for name, n in present.items()}


def evolve(
    rule: Rule,
    key: jax.Array,
    progress: jax.Array,
    counts: Counts,
    topology: Topology,
    weights: Weights,
    gradients: Weights | None,
) -> tuple[Topology, EvolutionInfo]:
    """One topology update of a network.

    Args:
      rule: the method.
      key: a PRNG key, used for nothing else.
      progress: float32[], 0 at the first step and 1 where updates stop.
      counts: int32[] by layer, connections after the update (`target_counts`). A layer that keeps more than that
        after its drop grows nothing.
      topology: before the update.
      weights: float[...] by layer, zero outside the masks.
      gradients: dense gradients of the loss at these weights, or None if the rule needs none.

    Returns:
      The new topology and what was done.
    """
    fraction = rule.drop_fraction(progress)
    masks, survivors = {}, {}
    layers = sorted(topology.masks)
    for layer_key, name in zip(jax.random.split(key, len(layers)), layers, strict=True):
        drop_key, grow_key = jax.random.split(layer_key)
        gradient = gradients[name] if rule.needs_gradient else None
        signals = Signals(weights[name], topology.masks[name], topology.explored[name], gradient)
        score = rule.drop(drop_key, signals)
        if rule.count == "schedule":  # down to the count first; what then moves is a share of that
            signals = signals._replace(mask=top_k(score, counts[name], signals.mask))
        masks[name], survivors[name] = drop_and_grow(
            rule.groups(signals), score, rule.grow(grow_key, signals), fraction, counts[name]
        )
    lost = [jnp.sum(topology.masks[name] & ~survivors[name], dtype=jnp.int32) for name in layers]
    explored = {name: topology.explored[name] | masks[name] for name in layers}
    new = topology._replace(masks=masks, explored=explored)
    return new, EvolutionInfo(survivors, sum(lost, jnp.int32(0)))
