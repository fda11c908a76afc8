"""An optimiser step and a topology update of one network, whatever computed its gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_jax.topology.birth import Born, born_weights
from sparse_jax.topology.evolution import EvolutionInfo, evolve, start_topology
from sparse_jax.topology.masks import Counts, Masks, Weights, apply_masks, put, select
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course
from sparse_jax.training.optimizers import zero_slots


class Network(NamedTuple):
    """What both change."""

    params: Any  # zero outside the masks
    opt_state: Any  # slots zero outside the connections that are trained
    topology: Topology


def first_network(rule: Rule, tx: optax.GradientTransformation, dense: Any, masks: Masks) -> Network:
    """The network before the first step; `dense` are its initial parameters, unmasked."""
    topology = start_topology(rule, masks, select(dense, masks))
    params = apply_masks(dense, masks)
    return Network(params, zero_slots(tx, tx.init(params), params, masks), topology)


def descend(
    rule: Rule, tx: optax.GradientTransformation, rate: jax.Array, key: jax.Array, network: Network, grads: Any
) -> Network:
    """One optimiser step. Only the connections that are trained change; what is not used is zero in `params`.

    Args:
      rule: the method.
      tx: the optimiser.
      rate: float32[], the learning rate; used by DeepR's walk.
      key: a PRNG key, used for nothing else; of DeepR's walk.
      network: before the step.
      grads: of the loss at the parameters, dense; of their structure.
    """
    topology, changing = network.topology, network.topology.trained
    if topology.momentum is not None:
        topology = topology._replace(momentum=_averaged(rule, topology.momentum, grads))
    values = _with_latent(network.params, topology)
    grads = apply_masks(grads, changing)
    if rule.backward:
        grads = _explored(rule, topology, values, grads)
    steps, opt_state = tx.update(grads, network.opt_state, values)
    values = apply_masks(optax.apply_updates(values, steps), changing)
    if rule.walks:
        values = _walk(rule, rate, key, topology, values)
    params, topology = _without_latent(values, topology)
    return Network(params, zero_slots(tx, opt_state, params, changing), topology)


def rewire(
    rule: Rule,
    tx: optax.GradientTransformation,
    rate: jax.Array,
    key: jax.Array,
    course: Course,
    accuracy: jax.Array,
    start: Counts,
    final: Counts,
    network: Network,
    grads: Weights | None,
    fresh: Weights | None,
) -> tuple[Network, EvolutionInfo]:
    """One topology update: new masks, the weights of what is born, optimiser slots zero but for the survivors.

    Args:
      rule, key, course, accuracy, start, final: as `evolve` has them.
      tx: the optimiser.
      rate: float32[], the learning rate; used where gradients make the new weights.
      network: before the update.
      grads: dense, by layer, or None if the rule needs none.
      fresh: another initialisation by layer, or None if the rule needs none.
    """
    old, before = network.topology, select(network.params, network.topology.masks)
    new, info = evolve(rule, key, course, accuracy, start, final, old, before, grads)
    new = new._replace(accuracy=jnp.fmax(old.accuracy, accuracy))
    kept = info.survivors
    if rule.backward:
        values = {name: before[name] + old.latent[name] for name in before}
        weights = {name: jnp.where(mask, values[name], 0) for name, mask in new.masks.items()}
        new = new._replace(latent={name: jnp.where(mask, 0, values[name]) for name, mask in new.masks.items()})
        kept = {name: old.backward[name] & new.backward[name] for name in kept}
    else:
        born = {
            name: Born(weight, fresh and fresh[name], grads and grads[name], rate) for name, weight in before.items()
        }
        weights = born_weights(rule.birth, new.masks, info.survivors, born)
    params = put(network.params, weights)
    return Network(params, zero_slots(tx, network.opt_state, params, kept), new), info


def _averaged(rule: Rule, momentum: Weights, grads: Any) -> Weights:
    """m ← β m + (1 − β) ∂L/∂w, dense."""
    smoothing, grads = rule.rates["smoothing"], select(grads, momentum)
    return {name: smoothing * m + (1 - smoothing) * grads[name].astype(m.dtype) for name, m in momentum.items()}


def _with_latent(params: Any, topology: Topology) -> Any:
    """The values of all trained connections: those in use, and Top-KAST's others."""
    if topology.latent is None:
        return params
    weights = select(params, topology.masks)
    trained = {
        name: jnp.where(mask, weights[name] + topology.latent[name], 0) for name, mask in topology.backward.items()
    }
    return put(params, trained)


def _without_latent(values: Any, topology: Topology) -> tuple[Any, Topology]:
    """Zeros outside the masks, and a topology that keeps what stood there."""
    params = apply_masks(values, topology.masks)
    if topology.latent is None:
        return params, topology
    new = select(values, topology.masks)
    latent = {name: jnp.where(topology.backward[name], new[name], old) for name, old in topology.latent.items()}
    unused = {name: jnp.where(mask, 0, latent[name]) for name, mask in topology.masks.items()}
    return params, topology._replace(latent=unused)


def _explored(rule: Rule, topology: Topology, values: Any, grads: Any) -> Any:
    """Top-KAST's exploration loss: L2 on the connections in use, divided by their density D on the other trained ones.

    λ/2 (Σ_A w² + Σ_{B∖A} w² / D),   D the density of the layer (Jayakumar et al. 2020, section 2.3)
    """
    weights, penalised = select(values, topology.masks), select(grads, topology.masks)
    for name, mask in topology.masks.items():
        density = jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1) / mask.size
        penalty = rule.rates["exploration_decay"] * weights[name] * jnp.where(mask, 1, 1 / density)
        penalised[name] += penalty.astype(penalised[name].dtype)
    return put(grads, penalised)


def _walk(rule: Rule, rate: jax.Array, key: jax.Array, topology: Topology, values: Any) -> Any:
    """DeepR's drift and noise: w ← w − η α s + √(2 η T) ν, s the sign, ν ~ N(0, 1) (Bellec et al. 2018)."""
    weights = select(values, topology.masks)
    keys = dict(zip(sorted(weights), jax.random.split(key, len(weights)), strict=True))
    for name, mask in topology.masks.items():
        sign = jnp.where(topology.positive[name], 1, -1)
        noise = jnp.sqrt(2 * rate * rule.rates["noise"]) * jax.random.normal(keys[name], sign.shape)
        walked = weights[name] - rate * rule.rates["l1"] * sign + noise
        weights[name] = jnp.where(mask, walked.astype(weights[name].dtype), 0)
    return put(values, weights)
