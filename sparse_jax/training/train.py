"""The training of one run as pure functions: initialise, some steps, one topology update, an evaluation."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sparse_jax.config import RunConfig
from sparse_jax.data.batches import Data
from sparse_jax.sparse.growth import Sensitivity
from sparse_jax.sparse.links import Links
from sparse_jax.topology.masks import Weights, apply_masks, select
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course
from sparse_jax.training.average import Average, averaged_step, averaged_update
from sparse_jax.training.evaluation import evaluate, tally_validation, validate
from sparse_jax.training.gradients import gradients, gradients_everywhere
from sparse_jax.training.network import Network, descend, rewire
from sparse_jax.training.optimizers import zero_slots
from sparse_jax.training.parts import (
    BIRTH,
    UPDATE,
    WALK,
    Choices,
    Parts,
    counting_active,
    course,
    initial_variables,
    learning_rate,
    links_of,
    make_parts,
    optimizer,
    rule_of,
    weights_key,
    with_links,
)
from sparse_jax.training.problem import Problem
from sparse_jax.training.relinking import Seen, carry, joined, parted, relink
from sparse_jax.training.start import init
from sparse_jax.training.state import HyperParams, Rewind, RunState, TrainFns


def make_train(
    config: RunConfig, problem: Problem, choices: Choices | None = None, batch_devices: int = 1
) -> TrainFns:
    """The functions that train one run, ready for jit, vmap, map and shard_map.

    Args:
      config: the resolved configuration; its dynamic settings are ignored, they come with `HyperParams`.
      problem: sizes and shapes, of the same configuration.
      choices: of the settings that a search is over, and that come with `HyperParams`, too.
      batch_devices: that share the batches of the run, along the axis BATCH of their mesh; they divide the batch size.
    """
    parts = make_parts(config, problem, choices, batch_devices)
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
    rule, now = rule_of(parts, hyper), course(parts.config, parts.problem, state.step)
    accuracy = state.topology.accuracy
    if rule.count == "accuracy":
        accuracy = tally_validation(parts, state, data).correct / parts.problem.validation
    grads, sensitivities = _seen(parts, rule, state, data)
    begun, links = state, links_of(state.model_state)
    masked, slotted = parted(state.topology, links)
    if masked.masks:
        state = _rewired(parts, rule, hyper, now, accuracy, state, masked, grads, data)
        masked = state.topology
    if links:
        draw = partial(_drawn, parts, begun, data)
        keys = weights_key(parts.config, hyper), _key(begun, BIRTH)
        seen = Seen(grads, sensitivities, *(partial(draw, key) for key in keys))
        state = _relinked(parts, rule, hyper, now, accuracy, state, slotted, links, seen)
        state = state._replace(topology=joined(state.topology, masked))
    state = state._replace(step=state.step + (rule.update == "instead_of_step"))
    return state if rule.rewind == "no" else _rewound(parts, hyper, state)


def _seen(parts: Parts, rule: Rule, state: RunState, data: Data) -> tuple[Weights | None, dict[str, Sensitivity]]:
    """The gradients of the connections that a rule looks at, by layer, and what those of the absent are made of."""
    if "gradient" not in rule.needs:
        return None, {}
    at = state.key, state.step, state.params, state.model_state, data
    if parts.problem.slots and "gradient" in rule.grow.needs:
        grads, sensitivities = gradients_everywhere(parts, *at)
        return select(grads, parts.problem.masked), sensitivities
    return select(gradients(parts, *at)[0], parts.problem.masked), {}


def _rewired(
    parts: Parts, rule: Rule, hyper: HyperParams, now: Course, accuracy: jax.Array, state: RunState, masked: Topology,
    grads: Weights | None, data: Data,
) -> RunState:
    """The state after the update of the layers that have masks; its topology is theirs."""
    tx, rate = optimizer(parts, hyper, state.step), learning_rate(parts, hyper, state.step)
    fresh = _fresh(parts, state, masked, data) if rule.birth == "fresh" else None
    counts = ({name: counts[name] for name in masked.masks} for counts in (hyper.start, hyper.counts))
    before = _network(state)._replace(topology=masked)
    network, info = rewire(rule, tx, rate, _key(state, UPDATE), now, accuracy, *counts, before, grads, fresh)
    return state._replace(
        **network._asdict(),
        running=state.running._replace(moved=state.running.moved + info.moved),
        average=averaged_update(state.average, network.params, info.survivors),
    )


def _relinked(
    parts: Parts, rule: Rule, hyper: HyperParams, now: Course, accuracy: jax.Array, state: RunState, slotted: Topology,
    links: dict[str, Links], seen: Seen,
) -> RunState:
    """The state after the update of the layers that are executed sparsely; its topology is theirs."""
    tx, key = optimizer(parts, hyper, state.step), jax.random.fold_in(_key(state, UPDATE), 1)
    before, bounds = _network(state)._replace(topology=slotted), (parts.problem.slots, parts.config.drop_fraction)
    network, links, sources, moved = relink(
        rule, tx, key, now, accuracy, hyper.start, hyper.counts, before, links, seen, *bounds
    )
    state, average = state._replace(model_state=with_links(state.model_state, links)), state.average
    if average is not None:
        kept = {name: source >= 0 for name, source in sources.items()}
        average = averaged_update(average._replace(params=carry(average.params, sources)), network.params, kept)
        average = average._replace(model_state=with_links(average.model_state, links))
    running = state.running._replace(moved=state.running.moved + moved)
    return state._replace(**network._asdict(), running=running, average=average)


def _drawn(parts: Parts, state: RunState, data: Data, key: jax.Array, links: dict[str, Links]) -> Weights:
    """The weights of connections that a key draws."""
    weights = select(initial_variables(parts, key, data, links)[0], links)
    return counting_active(parts.config, weights, {}, links, links_of(state.model_state))


def _fresh(parts: Parts, state: RunState, masked: Topology, data: Data) -> Weights:
    """Another initialisation; where it counts active connections, they are those before the update."""
    params, _ = initial_variables(parts, _key(state, BIRTH), data, links_of(state.model_state))
    return counting_active(parts.config, select(params, masked.masks), masked.masks, {})


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
