"""One topology update of a layer on its connections alone: drop some, grow others, in the memory they take."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.sparse.growth import (
    Positions,
    Sensitivity,
    Shape,
    best_absent,
    best_absent_by_output,
    crowded,
    draw_absent,
    find,
    gradient_scores,
    random_scores,
)
from sparse_jax.sparse.links import Links, inputs_of_slots, make_links
from sparse_jax.sparse.rounding import most_of
from sparse_jax.topology.criteria import Signals
from sparse_jax.topology.moves import drop
from sparse_jax.topology.rule import Rule
from sparse_jax.topology.schedules import Course
from sparse_jax.topology.selection import top_k

MOST_GROUPS = 2  # of the connections of a layer that a rule drops apart


class Move(NamedTuple):
    """What an update made of the connections of a layer."""

    links: Links
    sources: jax.Array  # int32[capacity], the slot that the connection of each slot had before; −1 of new and of none
    moved: jax.Array  # int32[], dropped


def carried(sources: jax.Array, before: jax.Array) -> jax.Array:
    """The values of the slots after an update, by their connections; zero where these are new, or none."""
    return jnp.where(sources >= 0, before[jnp.maximum(sources, 0)], jnp.zeros((), before.dtype))


def in_use(links: Links) -> jax.Array:
    """bool[capacity], the slots that hold a connection."""
    return jnp.arange(links.capacity, dtype=jnp.int32) < links.input_starts[-1]


def merge(links: Links, kept: jax.Array, new: Positions, shape: Shape) -> tuple[Links, jax.Array]:
    """The kept connections and the new ones, in their order, and the slot from which each came (−1 of new ones).

    Args:
      links: before.
      kept: bool[capacity], which connections stay.
      new: none of them among the kept; with these at most as many as there are slots.
      shape: (I, O) of the layer.
    """
    n = links.capacity
    before, _ = find(links, new)
    used = new.inputs < shape[0]
    earlier = jnp.cumsum(jnp.zeros(n, jnp.int32).at[jnp.where(used, before, n)].add(1, mode="drop"))
    kept_until = jnp.cumsum(kept, dtype=jnp.int32)
    kept_before = jnp.concatenate([jnp.zeros(1, jnp.int32), kept_until])[before]
    to_kept = jnp.where(kept, kept_until - 1 + earlier, n)
    to_new = jnp.where(used, jnp.arange(used.size, dtype=jnp.int32) + kept_before, n)

    def placed(old, grown, empty):
        return jnp.full(n, empty, jnp.int32).at[to_kept].set(old, mode="drop").at[to_new].set(grown, mode="drop")

    slot, nowhere = jnp.arange(n, dtype=jnp.int32), jnp.full(used.size, -1, jnp.int32)
    inputs = placed(inputs_of_slots(links), new.inputs, shape[0])
    outputs = placed(links.outputs, new.outputs, shape[1])
    count = kept_until[-1] + jnp.sum(used, dtype=jnp.int32)
    return make_links(inputs, outputs, count, shape), placed(slot, nowhere, -1)


def survivors(
    rule: Rule, course: Course, pruned_to: jax.Array, score: jax.Array, signals: Signals, shape: Shape
) -> jax.Array:
    """bool[capacity], the connections that an update leaves; as `topology.moves` has it for masks."""
    kept = signals.mask
    if rule.count in ("schedule", "extra"):
        kept = top_k(score, pruned_to, kept)
    if rule.remove == "below_zero":
        kept = kept & (score >= 0)
    if rule.remove == "fraction":
        active = jnp.sum(kept, dtype=jnp.int32)
        room = (jnp.float32(math.prod(shape)) - active) / jnp.maximum(active, 1)
        fraction = jnp.minimum(rule.drop_fraction(course.training), room)
        kept = drop(tuple(kept & group for group in rule.groups(signals)), score, fraction)
    return kept


def most_grown(rule: Rule, slots: int, drop_fraction: float | None) -> int:
    """How many connections an update can grow at most; a share of them, where that is what it moves.

    The groups of which it drops a share each, as SET does of the positive and of the negative weights, round apart.
    """
    if rule.count == "extra" or (rule.remove == "fraction" and rule.count != "schedule"):
        return min(slots, most_of(drop_fraction, slots) + MOST_GROUPS)
    return slots


def evolve(
    rule: Rule,
    key: jax.Array,
    course: Course,
    pruned_to: jax.Array,
    count: jax.Array,
    links: Links,
    signals: Signals,
    sensitivity: Sensitivity | None,
    shape: Shape,
    slots: int,
    most: int,
) -> Move:
    """One topology update of a layer.

    Args:
      rule: the method; its scope is the layer, its pattern none or fan_in.
      key: a PRNG key, used for nothing else.
      course: where in training the update stands.
      pruned_to, count: int32[], the connections that are left before any move, and those after it.
      links: before the update.
      signals: by slot.
      sensitivity: where connections grow by their gradient; else None.
      shape: (I, O) of the layer.
      slots: static, those that the run began with: what is drawn does not depend on how many there are now.
      most: static, connections that may grow.

    Returns:
      The connections after it.
    """
    drop_key, grow_key = jax.random.split(key)
    score = rule.drop.score(drop_key, signals)
    kept = survivors(rule, course, pruned_to, score, signals, shape)
    left = jnp.sum(kept, dtype=jnp.int32)
    moved = jnp.sum(signals.mask, dtype=jnp.int32) - left
    if not rule.grows:
        nothing = Positions(*(jnp.full(1, side, jnp.int32) for side in shape))
        return Move(*merge(links, kept, nothing, shape), moved)
    missing = jnp.clip(count - left, 0, most)
    new = _new(rule, grow_key, links, kept, missing, count, sensitivity, shape, slots, most)
    return Move(*merge(links, kept, new, shape), moved)


def _new(
    rule: Rule, key: jax.Array, links: Links, kept: jax.Array, missing: jax.Array, count: jax.Array,
    sensitivity: Sensitivity | None, shape: Shape, slots: int, most: int,
) -> Positions:
    """Where the missing connections grow: by gradient or at random, as many for every output under a fan-in."""
    pairs = zip((inputs_of_slots(links), links.outputs), shape, strict=True)
    taken = Positions(*(jnp.where(kept, side, pad) for side, pad in pairs))
    if rule.pattern.kind != "fan_in":
        if sensitivity is not None:
            return best_absent(gradient_scores(*sensitivity), jnp.float32, taken, missing, most, shape, slots)
        if crowded(shape, slots):
            return best_absent(random_scores(key, shape[1]), jnp.uint32, taken, missing, most, shape, slots)
        return draw_absent(key, links, kept, missing, most, shape, None)
    to = jnp.where(kept, links.outputs, shape[1])
    each = count // shape[1] - jnp.zeros(shape[1], jnp.int32).at[to].add(1, mode="drop")
    if sensitivity is not None:
        return best_absent_by_output(gradient_scores(*sensitivity[::-1]), taken, each, most, shape, slots)
    if crowded(shape, slots):
        return best_absent_by_output(random_scores(key, shape[0]), taken, each, most, shape, slots)
    outputs = jnp.repeat(jnp.arange(shape[1], dtype=jnp.int32), each, total_repeat_length=most)
    return draw_absent(key, links, kept, missing, most, shape, outputs)
