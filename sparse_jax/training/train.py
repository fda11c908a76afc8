"""The training of one run as pure functions: initialise, some steps, one topology update, an evaluation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sparse_jax.config import RunConfig
from sparse_jax.data.batches import Data
from sparse_jax.topology.masks import Weights, apply_masks, select
from sparse_jax.training.average import Average, averaged_step, averaged_update
from sparse_jax.training.evaluation import evaluate, evaluate_validation, validate
from sparse_jax.training.network import Network, descend, rewire
from sparse_jax.training.optimizers import zero_slots
from sparse_jax.training.parts import (
    BIRTH,
    UPDATE,
    WALK,
    Parts,
    counting_active,
    course,
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


def _network(state: RunState) -> Network:
    return Network(state.params, state.opt_state, state.topology)


def _key(state: RunState, stream: int) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(state.key, stream), state.step)


def _step(parts: Parts, hyper: HyperParams, data: Data, state: RunState) -> RunState:
    """One optimiser step."""
    tx, rate = optimizer(parts, hyper, state.step), learning_rate(parts, hyper, state.step)
    grads, (loss, correct, model_state) = _gradients(parts, state, data)
    network = descend(rule_of(parts, hyper), tx, rate, _key(state, WALK), _network(state), grads)
    running = state.running._replace(
        loss=state.running.loss + loss, correct=state.running.correct + correct, batches=state.running.batches + 1
    )
    state = state._replace(
        **network._asdict(),
        step=state.step + 1,
        model_state=model_state,
        running=running,
        average=averaged_step(parts.config.ema, state.step, state.average, Average(network.params, model_state)),
        diverged=state.diverged | ~jnp.isfinite(loss),
    )
    return _remember(parts, state)


def _remember(parts: Parts, state: RunState) -> RunState:
    """The network of the step that a method rewinds to, if that is not the first one."""
    if state.rewind is None or not parts.config.rewind_to:
        return state
    now = state.step == parts.config.rewind_to
    current = Rewind(state.params, state.model_state)
    return state._replace(rewind=jax.tree.map(lambda new, old: jnp.where(now, new, old), current, state.rewind))


def _steps(parts: Parts, state: RunState, hyper: HyperParams, data: Data, count: jax.Array) -> RunState:
    return lax.fori_loop(0, count, lambda _, state: _step(parts, hyper, data, state), state)


def _update(parts: Parts, state: RunState, hyper: HyperParams, data: Data) -> RunState:
    rule, masked = rule_of(parts, hyper), parts.problem.masked
    tx, rate = optimizer(parts, hyper, state.step), learning_rate(parts, hyper, state.step)
    grads = select(_gradients(parts, state, data)[0], masked) if "gradient" in rule.needs else None
    fresh = _fresh(parts, state, data) if rule.birth == "fresh" else None
    accuracy = state.topology.accuracy
    if rule.count == "accuracy":
        accuracy = evaluate_validation(parts, state, data).correct / parts.problem.validation
    now, counts = course(parts.config, parts.problem, state.step), (hyper.start, hyper.counts)
    network, info = rewire(rule, tx, rate, _key(state, UPDATE), now, accuracy, *counts, _network(state), grads, fresh)
    state = state._replace(
        **network._asdict(),
        step=state.step + (rule.update == "instead_of_step"),
        running=state.running._replace(moved=state.running.moved + info.moved),
        average=averaged_update(state.average, network.params, info.survivors),
    )
    return state if rule.rewind == "no" else _rewound(parts, hyper, state)


def _fresh(parts: Parts, state: RunState, data: Data) -> Weights:
    """Another initialisation; where it counts active connections, they are those before the update."""
    params, _ = initial_variables(parts, _key(state, BIRTH), data)
    masks = state.topology.masks
    return counting_active(parts.config, select(params, masks), masks)


def _rewound(parts: Parts, hyper: HyperParams, state: RunState) -> RunState:
    """The state from which a method that rewinds trains again: earlier weights or the present ones, slots zero.

    With the weights their average starts again, too.
    """
    masks = state.topology.masks
    if state.rewind is not None:
        params = apply_masks(state.rewind.params, masks)
        average = None if state.average is None else Average(params, state.rewind.model_state)
        state = state._replace(params=params, model_state=state.rewind.model_state, average=average)
    tx = optimizer(parts, hyper, state.step)
    return state._replace(opt_state=zero_slots(tx, tx.init(state.params), state.params, masks))
