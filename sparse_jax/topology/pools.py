"""The connections that compete with each other, as [groups, units]: those of each layer, or of all layers.

A pool has one array a layer, in the groups of the layer's pattern, or a single one of all layers together.
"""

import itertools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from sparse_jax.topology.masks import Counts, Masks
from sparse_jax.topology.patterns import from_units, to_units
from sparse_jax.topology.rule import Rule

Pools = dict[str, jax.Array]  # by layer, or under the one name of all
ALL = "all layers"


def _of_units(units: jax.Array) -> jax.Array:
    """One value a unit: whether any is set, the sum of scores, one of the random integers."""
    if units.shape[2] == 1 or units.dtype == jnp.uint32:
        return units[:, :, 0]
    return jnp.any(units, axis=2) if units.dtype == bool else jnp.sum(units, axis=2)


def gather(rule: Rule, arrays: Mapping[str, jax.Array]) -> Pools:
    """The arrays, by layer and of its kernel's shape, as pools; uint32 or float32 scores, or masks."""
    if rule.scope == "global":
        return {ALL: jnp.concatenate([arrays[name].ravel() for name in sorted(arrays)])[None]}
    return {name: _of_units(to_units(rule.pattern, array)) for name, array in arrays.items()}


def scatter(rule: Rule, pools: Pools, shapes: Mapping[str, tuple[int, ...]]) -> Masks:
    """The inverse of `gather` for masks."""
    if rule.scope == "global":
        names = sorted(shapes)
        ends = list(itertools.accumulate(math.prod(shapes[name]) for name in names))
        parts = jnp.split(pools[ALL][0], ends[:-1])
        return {name: part.reshape(shapes[name]) for name, part in zip(names, parts, strict=True)}
    return {name: _to_kernel(rule, pool, shapes[name]) for name, pool in pools.items()}


def _to_kernel(rule: Rule, pool: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    units = jnp.broadcast_to(pool[:, :, None], (*pool.shape, rule.pattern.unit))
    return from_units(rule.pattern, units, shape)


def by_group(rule: Rule, counts: Counts, places: Pools) -> Pools:
    """int32[groups] of every pool: the units that each group gets of the counts of the layers.

    All groups that have any place get the same number; what does not divide is left over.
    """
    if rule.scope == "global":
        return {ALL: sum(counts.values())[None]}

    def shared(count, place):
        used = jnp.any(place, axis=1)
        each = count // rule.pattern.unit // jnp.maximum(jnp.sum(used, dtype=jnp.int32), 1)
        return jnp.where(used, each, 0)

    return {name: shared(counts[name], place) for name, place in places.items()}
