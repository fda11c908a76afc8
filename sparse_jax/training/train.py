"""The training of one run as pure functions: initialise, some steps, one topology update, an evaluation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sparse_jax.config import RunConfig
from sparse_jax.data.batches import Data
from sparse_jax.topology.birth import Born, born_weights
from sparse_jax.topology.evolution import evolve, trained
from sparse_jax.topology.masks import Masks, Weights, apply_masks, put, select
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course
from sparse_jax.training.evaluation import evaluate, evaluate_validation, validate
from sparse_jax.training.optimizers import zero_slots
from sparse_jax.training.parts import (
    BIRTH,
    UPDATE,
    WALK,
    Parts,
    gradients,
    initial_variables,
    learning_rate,
    make_parts,
    optimizer,
    rule_of,
)
from sparse_jax.training.problem import Problem
from sparse_jax.training.start import init
from sparse_jax.training.state import HyperParams, Rewind, RunState, TrainFns
from sparse_jax.training.timeline import last_update, period, stop_step, updates


def make_train(config: RunConfig, problem: Problem) -> TrainFns:
    """The functions that train one run, ready for jit, vmap, map and shard_map.

    Args:
      config: the resolved configuration; its dynamic settings are ignored, they come with `HyperParams`.
      problem: sizes and shapes, of the same configuration.
    """
    parts = make_parts(config, problem)
    return TrainFns(
        init=partial(init, parts),
        steps=partial(_steps, parts),
        update=partial(_update, parts),
        evaluate=partial(evaluate, parts),
        validate=partial(validate, parts),
        update_steps=int(config.update_step == "skip"),
    )


def _gradients(parts: Parts, state: RunState, data: Data) -> tuple[Any, tuple]:
    return gradients(parts, state.key, state.step, state.params, state.model_state, data)


def _step(parts: Parts, hyper: HyperParams, data: Data, state: RunState) -> RunState:
    """One optimiser step. Only `trained` connections change; what is not used is zero in `params`."""
    rule, topology, running = rule_of(parts, hyper), state.topology, state.running
    tx, changing = optimizer(parts, hyper, state.step), trained(topology)
    grads, (loss, correct, model_state) = _gradients(parts, state, data)
    if topology.momentum is not None:
        topology = topology._replace(momentum=_averaged(rule, topology.momentum, grads))
    values = _with_latent(state.params, topology)
    grads = apply_masks(grads, changing)
    if rule.backward:
        grads = _explored(rule, topology, values, grads)
    steps, opt_state = tx.update(grads, state.opt_state, values)
    values = apply_masks(optax.apply_updates(values, steps), changing)
    if rule.walks:
        values = _walk(parts, hyper, rule, state, values)
    params, topology = _without_latent(values, topology)
    state = state._replace(
        step=state.step + 1,
        params=params,
        model_state=model_state,
        opt_state=zero_slots(tx, opt_state, params, changing),
        topology=topology,
        running=running._replace(
            loss=running.loss + loss, correct=running.correct + correct, batches=running.batches + 1
        ),
        diverged=state.diverged | ~jnp.isfinite(loss),
    )
    return _remember(parts, state)


def _averaged(rule: Rule, momentum: Weights, grads: Any) -> Weights:
    """m ← β m + (1 − β) ∂L/∂w, dense."""
    smoothing, grads = rule.rates["smoothing"], select(grads, momentum)
    return {name: smoothing * m + (1 - smoothing) * grads[name] for name, m in momentum.items()}


def _with_latent(params: Any, topology: Topology) -> Any:
    """The values of all trained connections: those in use, and Top-KAST's others."""
    if topology.latent is None:
        return params
    weights = select(params, topology.masks)
    return put(
        params, {n: jnp.where(mask, weights[n] + topology.latent[n], 0) for n, mask in topology.backward.items()}
    )


def _without_latent(values: Any, topology: Topology) -> tuple[Any, Topology]:
    """Zeros outside the masks, and a topology that keeps what stood there."""
    params = apply_masks(values, topology.masks)
    if topology.latent is None:
        return params, topology
    new = select(values, topology.masks)
    latent = {n: jnp.where(topology.backward[n], new[n], old) for n, old in topology.latent.items()}
    return params, topology._replace(latent={n: jnp.where(m, 0, latent[n]) for n, m in topology.masks.items()})


def _explored(rule: Rule, topology: Topology, values: Any, grads: Any) -> Any:
    """Top-KAST's exploration loss: L2 on the connections in use, divided by their density D on the other trained ones.

    λ/2 (Σ_A w² + Σ_{B∖A} w² / D),   D the density of the layer (Jayakumar et al. 2020, section 2.3)
    """
    decay, weights, dense_grads = (
        rule.rates["exploration_decay"],
        select(values, topology.masks),
        select(grads, topology.masks),
    )

    def penalised(name):
        mask = topology.masks[name]
        density = jnp.maximum(jnp.sum(mask, dtype=jnp.int32), 1) / mask.size
        return dense_grads[name] + decay * weights[name] * jnp.where(mask, 1, 1 / density)

    return put(grads, {name: penalised(name) for name in topology.masks})


def _walk(parts: Parts, hyper: HyperParams, rule: Rule, state: RunState, values: Any) -> Any:
    """DeepR's drift and noise: w ← w − η α s + √(2 η T) ν, s the sign, ν ~ N(0, 1) (Bellec et al. 2018)."""
    rate, topology, weights = (
        learning_rate(parts, hyper, state.step),
        state.topology,
        select(values, state.topology.masks),
    )
    key = jax.random.fold_in(jax.random.fold_in(state.key, WALK), state.step)
    keys = dict(zip(sorted(weights), jax.random.split(key, len(weights)), strict=True))

    def walked(name):
        sign = jnp.where(topology.positive[name], 1, -1)
        noise = jnp.sqrt(2 * rate * rule.rates["noise"]) * jax.random.normal(keys[name], sign.shape)
        moved = weights[name] - rate * rule.rates["l1"] * sign + noise
        return jnp.where(topology.masks[name], moved, 0)

    return put(values, {name: walked(name) for name in weights})


def _remember(parts: Parts, state: RunState) -> RunState:
    """The network of the step that a method rewinds to, if that is not the first one."""
    if state.rewind is None or not parts.config.rewind_to:
        return state
    now = state.step == parts.config.rewind_to
    current = Rewind(state.params, state.model_state)
    return state._replace(rewind=jax.tree.map(lambda new, old: jnp.where(now, new, old), current, state.rewind))


def _steps(parts: Parts, state: RunState, hyper: HyperParams, data: Data, count: jax.Array) -> RunState:
    return lax.fori_loop(0, count, lambda _, state: _step(parts, hyper, data, state), state)


def _course(parts: Parts, step: jax.Array) -> Course:
    config, problem = parts.config, parts.problem
    made, last = max(updates(config, problem), 1), last_update(config, problem)
    left = jnp.maximum(last - step, 0) // period(config)
    return Course(jnp.minimum(step / stop_step(config, problem), 1), (made - left) / made, left)


def _update(parts: Parts, state: RunState, hyper: HyperParams, data: Data) -> RunState:
    rule, problem, topology = rule_of(parts, hyper), parts.problem, state.topology
    grads = select(_gradients(parts, state, data)[0], problem.masked) if "gradient" in rule.needs else None
    accuracy = topology.accuracy
    if rule.count == "accuracy":
        accuracy = evaluate_validation(parts, state, data).correct / problem.validation
    key = jax.random.fold_in(jax.random.fold_in(state.key, UPDATE), state.step)
    weights, course = select(state.params, problem.masked), _course(parts, state.step)
    new, info = evolve(rule, key, course, accuracy, hyper.start, hyper.counts, topology, weights, grads)
    new = new._replace(accuracy=jnp.maximum(topology.accuracy, accuracy))
    params, new = _new_weights(parts, hyper, rule, state, data, new, info.survivors, grads)
    kept = info.survivors
    if rule.backward:
        kept = {name: topology.backward[name] & new.backward[name] for name in kept}
    tx = optimizer(parts, hyper, state.step)
    state = state._replace(
        step=state.step + (rule.update == "instead_of_step"),
        params=params,
        opt_state=zero_slots(tx, state.opt_state, params, kept),
        topology=new,
        running=state.running._replace(moved=state.running.moved + info.moved),
    )
    return state if rule.rewind == "no" else _rewound(parts, hyper, state)


def _new_weights(
    parts: Parts,
    hyper: HyperParams,
    rule: Rule,
    state: RunState,
    data: Data,
    topology: Topology,
    survivors: Masks,
    grads: Weights | None,
) -> tuple[Any, Topology]:
    """The parameters after an update, and the topology with what Top-KAST keeps of the others."""
    old = select(state.params, topology.masks)
    if rule.backward:
        values = {name: old[name] + state.topology.latent[name] for name in old}
        latent = {name: jnp.where(mask, 0, values[name]) for name, mask in topology.masks.items()}
        return put(state.params, {n: jnp.where(m, values[n], 0) for n, m in topology.masks.items()}), topology._replace(
            latent=latent
        )
    fresh = {}
    if rule.birth == "fresh":
        key = jax.random.fold_in(jax.random.fold_in(state.key, BIRTH), state.step)
        fresh = select(initial_variables(parts, key, data)[0], topology.masks)
    rate = learning_rate(parts, hyper, state.step)
    born = {name: Born(old[name], fresh.get(name), grads[name] if grads else None, rate) for name in old}
    return put(state.params, born_weights(rule.birth, topology.masks, survivors, born)), topology


def _rewound(parts: Parts, hyper: HyperParams, state: RunState) -> RunState:
    """The state from which a method that rewinds trains again: earlier weights or the present ones, slots zero."""
    masks = state.topology.masks
    if state.rewind is not None:
        state = state._replace(params=apply_masks(state.rewind.params, masks), model_state=state.rewind.model_state)
    tx = optimizer(parts, hyper, state.step)
    return state._replace(opt_state=zero_slots(tx, tx.init(state.params), state.params, masks))
