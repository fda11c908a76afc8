"""Neurons that lose all their inputs for good: importance pruning, and the ablation of SRigL."""

import jax
import jax.numpy as jnp

from sparse_jax.topology.masks import Counts, Masks, Weights
from sparse_jax.topology.pools import Pools
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course
from sparse_jax.topology.selection import top_k


def inputs_of(alive: jax.Array, mask: jax.Array) -> jax.Array:
    """bool of the kernel's shape: the connections into the neurons that are alive, bool[outputs]."""
    return jnp.broadcast_to(alive.reshape((1,) * (mask.ndim - 1) + (-1,)), mask.shape)


def places_of(topology: Topology) -> Masks:
    """Where connections may lie: everywhere, but not into neurons that were cut off; bool by layer."""
    if topology.alive is None:
        return {name: jnp.ones(mask.shape, bool) for name, mask in topology.masks.items()}
    return {name: inputs_of(topology.alive[name], mask) for name, mask in topology.masks.items()}


def _without_dead(topology: Topology, alive: Masks) -> Topology:
    masks = {name: mask & inputs_of(alive[name], mask) for name, mask in topology.masks.items()}
    return topology._replace(masks=masks, alive=alive)


def cut_off(rule: Rule, course: Course, topology: Topology, weights: Weights) -> Topology:
    """Importance pruning: the hidden neurons of least Σ_i |w_ij| lose their inputs, and the layer these connections.

    Curci et al. 2021 (arXiv:2102.01732) cut what lies under a percentile of the layer's importances; here that is
    the ⌊q n⌋ least of the n neurons still alive, from a share of the updates on.
    """

    def keep(name, alive):
        if name == rule.outputs:
            return alive
        weight = jnp.abs(weights[name])
        importance = jnp.sum(weight, axis=tuple(range(weight.ndim - 1)))
        n = jnp.sum(alive, dtype=jnp.int32)
        kept = top_k(importance, n - jnp.floor(rule.importance_pruning * n).astype(jnp.int32), alive)
        return jnp.where(course.updates >= rule.rates["importance_from"], kept, alive)

    after = _without_dead(topology, {name: keep(name, alive) for name, alive in topology.alive.items()})
    lost = {name: jnp.sum(mask & ~after.masks[name], dtype=jnp.int32) for name, mask in topology.masks.items()}
    return after._replace(counts={name: topology.counts[name] - n for name, n in lost.items()})


def ablate(rule: Rule, growth: Pools, survivors: Pools, counts: Counts, topology: Topology) -> Topology:
    """SRigL's neuron ablation (Lasby et al. 2024, arXiv:2305.02299, section 3).

    A connection is salient if it survives the drop, or would grow were the layer unstructured. A neuron with fewer
    than max(1, ⌈γ k⌉) of them is ablated, k being the present fan-in; its connections go to the other neurons. As many
    neurons as it takes to hold all connections always stay, those that have most; ablated neurons stay ablated [ours],
    and those of the output layer are exempt.

    Args:
      rule: of a fan-in pattern; `ablation` is γ.
      growth: float32[neurons, inputs] by layer, the grow scores.
      survivors: bool[neurons, inputs] by layer.
      counts: int32[] by layer, connections after the update.
      topology: before the update.
    """

    def keep(name, alive):
        if name == rule.outputs:
            return alive
        stay = survivors[name]
        grown = top_k(growth[name], counts[name] - jnp.sum(stay, dtype=jnp.int32), alive[:, None] & ~stay)
        salient = jnp.sum(stay | grown, axis=1, dtype=jnp.int32)
        fan_in = counts[name] // jnp.maximum(jnp.sum(alive, dtype=jnp.int32), 1)
        least = jnp.maximum(1, jnp.ceil(rule.ablation * fan_in).astype(jnp.int32))
        enough = jnp.sum(alive & (salient >= least), dtype=jnp.int32)
        needed = -(-counts[name] // stay.shape[1])
        return top_k(salient.astype(jnp.uint32), jnp.maximum(enough, needed), alive)

    return _without_dead(topology, {name: keep(name, alive) for name, alive in topology.alive.items()})
