"""Fewer slots for fewer connections: where a method takes connections away, the arrays of a cohort follow.

Slots in use come first, so that the others can be cut off. What a run computes does not depend on how many there are.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparse_jax.sparse.links import with_capacity
from sparse_jax.topology.masks import put, select
from sparse_jax.training.parts import links_of, with_links

STEP = 0.5  # of the slots that a compaction leaves at most
LEAST_SAVED = 2**18  # slots that it has to save: programs are compiled anew, and products pass empty slots by anyway


def capacities(model_state: Any) -> dict[str, int]:
    """The slots of the layers that are executed sparsely, of one run or of many."""
    return {name: links.capacity for name, links in links_of(model_state).items()}


def fitting(connections: Mapping[str, int], slots: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """The slots that a network should have, by layer.

    Of n slots at the beginning that is the least of n, ⌈STEP n⌉, ⌈STEP ⌈STEP n⌉⌉, ... that holds the connections, if
    in all layers together this saves LEAST_SAVED of those that there are now; else it is these.
    """
    found = {}
    for name, n in slots.items():
        fits = now[name]
        while n > 1 and (n := math.ceil(n * STEP)) >= max(connections[name], 1):
            fits = min(fits, n)
        found[name] = fits
    return found if sum(now.values()) - sum(found.values()) >= LEAST_SAVED else dict(now)


def compacted(state: Any, capacity: Mapping[str, int]) -> Any:
    """The state of a cohort, or its shapes, with so many slots by layer; the best network keeps those that it had."""
    before = capacities(state.model_state)
    layers = {f"['{name}']": name for name in capacity}
    layers |= {f"['{name.removesuffix('/kernel')}']['kernel']": name for name in capacity}

    def cut(path, leaf):
        place = jax.tree_util.keystr(path)
        if place.startswith(".best") or place.endswith("_starts") or len(leaf.shape) != 2:
            return leaf
        for layer, name in layers.items():
            if layer in place and leaf.shape[1] == before[name]:
                return _cut(leaf, capacity[name])
        return leaf

    return jax.tree_util.tree_map_with_path(cut, state)


def _cut(leaf: Any, slots: int) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((leaf.shape[0], slots), leaf.dtype)
    return leaf[:, :slots]


def widened(params: Any, model_state: Any, like: Any) -> tuple[Any, Any]:
    """The network of one run with the slots that the other variables `like` have, which are no fewer."""
    slots, links = capacities(like), links_of(model_state)
    values = {name: jnp.pad(value, (0, slots[name] - value.size)) for name, value in select(params, links).items()}
    wide = {name: with_capacity(of_layer, slots[name]) for name, of_layer in links.items()}
    return put(params, values), with_links(model_state, wide)
