"""The connections that a topology update leads to, layer by layer."""

import jax
import jax.numpy as jnp

from sparse_jax.topology.masks import Counts
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course


def target_counts(
    rule: Rule, course: Course, accuracy: jax.Array, start: Counts, final: Counts, topology: Topology
) -> tuple[Counts, Counts]:
    """The connections of every layer that an update first prunes to, and those it ends with.

        constant   c, what the layer is entitled to: its first connections, or what came of a redistribution
        schedule   final + [(start − final) density(p)]
        accuracy   max(final, n − [n g])     AccSET [ours]: n is the present count, g the gain in accuracy
        extra      final, then final + ⌊ζ(p) final⌋, but final at the last update     MEST's soft bound

    with [·] rounding to the nearest integer. Once importance pruning has cut neurons off, a layer is entitled to what
    they left it (constant), or to the share of these counts that belongs to the neurons still alive, rounded down.
    """
    if rule.count == "constant":
        return topology.counts, topology.counts
    size = {name: mask.size for name, mask in topology.masks.items()}
    above = {name: start[name] - final[name] for name in final}
    if rule.count == "accuracy":
        gain = rule.gain(accuracy, topology.accuracy)
        present = {name: jnp.sum(mask, dtype=jnp.int32) for name, mask in topology.masks.items()}
        less = {name: n - jnp.round(n * gain).astype(jnp.int32) for name, n in present.items()}
        least = _of_the_living(rule, final, topology)
        return present, {name: jnp.maximum(least[name], n) for name, n in less.items()}
    if rule.count == "extra":
        share = jnp.where(course.left == 0, 0, rule.drop_fraction(course.updates))
        more = {name: jnp.floor(share * n).astype(jnp.int32) for name, n in final.items()}
        wide = {name: jnp.minimum(final[name] + more[name], size[name]) for name in final}
        return _of_the_living(rule, final, topology), _of_the_living(rule, wide, topology)
    ratio = {name: final[name] / jnp.maximum(start[name], 1) for name in final}
    share = {name: rule.density(course, ratio[name]) for name in final}
    left = {name: jnp.round(above[name] * share[name]).astype(jnp.int32) for name in final}
    counts = {name: final[name] + jnp.where(share[name] >= 1, above[name], left[name]) for name in final}  # exact at 1
    counts = _of_the_living(rule, counts, topology)
    return counts, counts


def _of_the_living(rule: Rule, counts: Counts, topology: Topology) -> Counts:
    """⌊n a / m⌋ of each count, a of the layer's m neurons being alive; in integers that do not overflow."""
    if not rule.importance_pruning:
        return counts
    shares = {}
    for name, alive in topology.alive.items():
        each, rest = jnp.divmod(counts[name], alive.size)
        left = jnp.sum(alive, dtype=jnp.int32)
        shares[name] = each * left + rest * left // alive.size
    return shares
