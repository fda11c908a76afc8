"""The training of one run as pure functions: initialise, some steps, one topology update, an evaluation."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from sparse_jax.activations.by_layer import by_layer
from sparse_jax.config import RunConfig
from sparse_jax.data.batches import Data, batch_at
from sparse_jax.data.normalization import make_apply
from sparse_jax.models.registry import MODELS
from sparse_jax.topology.evolution import Rule, evolve, start_topology, target_counts
from sparse_jax.topology.initial import random_masks
from sparse_jax.topology.masks import apply_masks, connections, select
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.schedules import DENSITY_SCHEDULES, DROP_SCHEDULES
from sparse_jax.training.optimizers import LR_SCHEDULES, make_optimizer, zero_slots
from sparse_jax.training.problem import Problem
from sparse_jax.training.state import Best, Evaluation, HyperParams, Report, Running, RunState, TrainFns
from sparse_jax.training.timeline import last_update, stop_step

EVALUATION_BATCH = 1000

# The streams of randomness of a run: each is folded into its key, then the step.
PARAMS, TOPOLOGY, ORDER, DROPOUT, UPDATE = range(5)


class Parts(NamedTuple):
    """What the functions of a run have in common: everything that is static."""

    config: RunConfig
    problem: Problem
    model: nn.Module
    normalize: Callable


def make_train(config: RunConfig, problem: Problem) -> TrainFns:
    """The functions that train one run, ready for jit, vmap, map and shard_map.

    Args:
      config: the resolved configuration; its dynamic settings are ignored, they come with `HyperParams`.
      problem: sizes and shapes, of the same configuration.
    """
    model = MODELS[config.model](config, problem.classes, by_layer(config.activation, config.all_relu_alpha))
    parts = Parts(config, problem, model, make_apply(config.normalization))
    rule = make_rule(config, jnp.float32(0), jnp.float32(0))
    return TrainFns(
        init=partial(_init, parts),
        steps=partial(_steps, parts),
        update=partial(_update, parts),
        evaluate=partial(_evaluate, parts),
        validate=partial(_validate, parts),
        update_steps=int(rule.update == "instead_of_step"),
    )


def make_rule(config: RunConfig, drop_fraction: jax.Array, shrink_rate: jax.Array) -> Rule:
    """The method of a run; drop fraction and shrink rate, float32[], may be traced."""
    course = jnp.zeros_like if config.drop_schedule is None else DROP_SCHEDULES[config.drop_schedule]
    density = jnp.zeros_like if config.density_schedule is None else DENSITY_SCHEDULES[config.density_schedule]
    return METHODS[config.method](Settings(lambda progress: drop_fraction * course(progress), density, shrink_rate))


def _optimizer(parts: Parts, hyper: HyperParams, step: jax.Array) -> optax.GradientTransformation:
    """The optimiser at `step`. The rate follows the run's own clock, on which RigL's updates count as steps."""
    factor = LR_SCHEDULES[parts.config.lr_schedule](parts.config, parts.problem.steps)
    return make_optimizer(parts.config, hyper.learning_rate * factor(step), hyper.weight_decay)


def _init(parts: Parts, hyper: HyperParams, data: Data) -> RunState:
    key = jax.random.key(hyper.seed)
    example = parts.normalize(data.normalization, data.x[:1])
    variables = parts.model.init(jax.random.fold_in(key, PARAMS), example, train=False)
    model_state = {name: value for name, value in variables.items() if name != "params"}
    masks = random_masks(jax.random.fold_in(key, TOPOLOGY), parts.problem.masked_shapes, hyper.start)
    params = apply_masks(variables["params"], masks)
    tx = _optimizer(parts, hyper, jnp.int32(0))
    return RunState(
        step=jnp.int32(0),
        params=params,
        model_state=model_state,
        opt_state=zero_slots(tx, tx.init(params), params, masks),
        topology=start_topology(masks),
        key=key,
        running=_nothing_yet(),
        diverged=jnp.bool_(False),
        best=Best(jnp.int32(-1), jnp.int32(0), params, model_state) if parts.problem.validation else None,
    )


def _nothing_yet() -> Running:
    return Running(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.int32(0))


def _gradients(parts: Parts, state: RunState, data: Data) -> tuple[Any, tuple]:
    """Dense gradients at the masked weights, of the batch of this step, with (loss, correct, model_state)."""
    order = jax.random.fold_in(state.key, ORDER)
    x, y = batch_at(data, order, state.step, n=parts.problem.train, batch_size=parts.config.batch_size)
    x = parts.normalize(data.normalization, x)
    dropout = jax.random.fold_in(jax.random.fold_in(state.key, DROPOUT), state.step)

    def loss_fn(params):
        logits, model_state = parts.model.apply(
            {"params": params, **state.model_state},
            x, train=True, rngs={"dropout": dropout}, mutable=list(state.model_state),
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        correct = jnp.sum(jnp.argmax(logits, -1) == y, dtype=jnp.int32)
        return loss, (loss, correct, model_state)

    return jax.grad(loss_fn, has_aux=True)(state.params)


def _step(parts: Parts, hyper: HyperParams, data: Data, state: RunState) -> RunState:
    tx, masks, running = _optimizer(parts, hyper, state.step), state.topology.masks, state.running
    grads, (loss, correct, model_state) = _gradients(parts, state, data)
    updates, opt_state = tx.update(apply_masks(grads, masks), state.opt_state, state.params)
    params = apply_masks(optax.apply_updates(state.params, updates), masks)
    return state._replace(
        step=state.step + 1,
        params=params,
        model_state=model_state,
        opt_state=zero_slots(tx, opt_state, params, masks),
        running=running._replace(
            loss=running.loss + loss, correct=running.correct + correct, batches=running.batches + 1
        ),
        diverged=state.diverged | ~jnp.isfinite(loss),
    )


def _steps(parts: Parts, state: RunState, hyper: HyperParams, data: Data, count: jax.Array) -> RunState:
    return lax.fori_loop(0, count, lambda _, state: _step(parts, hyper, data, state), state)


def _update(parts: Parts, state: RunState, hyper: HyperParams, data: Data) -> RunState:
    config, problem, topology = parts.config, parts.problem, state.topology
    rule = make_rule(config, hyper.drop_fraction, hyper.shrink_rate)
    grads = select(_gradients(parts, state, data)[0], problem.masked) if rule.needs_gradient else None
    accuracy = topology.accuracy
    if rule.count == "accuracy":
        accuracy = _evaluate_validation(parts, state, data).correct / problem.validation
    course = jnp.minimum(state.step / last_update(config, problem), 1)
    counts = target_counts(rule, course, accuracy, hyper.start, hyper.counts, topology)
    key = jax.random.fold_in(jax.random.fold_in(state.key, UPDATE), state.step)
    progress = jnp.minimum(state.step / stop_step(config, problem), 1)
    topology, info = evolve(rule, key, progress, counts, topology, select(state.params, problem.masked), grads)
    params = apply_masks(state.params, info.survivors)
    tx = _optimizer(parts, hyper, state.step)
    return state._replace(
        step=state.step + (rule.update == "instead_of_step"),
        params=params,
        opt_state=zero_slots(tx, state.opt_state, params, info.survivors),
        topology=topology._replace(accuracy=jnp.maximum(topology.accuracy, accuracy)),
        running=state.running._replace(moved=state.running.moved + info.moved),
    )


def _evaluate(
    parts: Parts, params: Any, model_state: Any, data: Data, start: jax.Array, stop: jax.Array
) -> Evaluation:
    """Loss and hits over the rows [start, stop) of the data, in batches that may be partly filled."""
    size = min(EVALUATION_BATCH, data.x.shape[0])

    def add(i, sums):
        first = start + i * size
        at = jnp.minimum(first, data.x.shape[0] - size)
        x, y = (lax.dynamic_slice_in_dim(array, at, size) for array in (data.x, data.y))
        row = at + lax.iota(jnp.int32, size)
        counted = (row >= first) & (row < stop)
        logits = parts.model.apply(
            {"params": params, **model_state}, parts.normalize(data.normalization, x), train=False
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        hits = jnp.sum(counted & (jnp.argmax(logits, -1) == y), dtype=jnp.int32)
        return Evaluation(sums.loss + jnp.sum(jnp.where(counted, losses, 0)), sums.correct + hits)

    batches = (stop - start + size - 1) // size
    sums = lax.fori_loop(0, batches, add, Evaluation(jnp.float32(0), jnp.int32(0)))
    return Evaluation(sums.loss / (stop - start), sums.correct)


def _evaluate_validation(parts: Parts, state: RunState, data: Data) -> Evaluation:
    start, stop = parts.problem.train, parts.problem.train + parts.problem.validation
    return _evaluate(parts, state.params, state.model_state, data, jnp.int32(start), jnp.int32(stop))


def _validate(parts: Parts, state: RunState, data: Data) -> tuple[RunState, Report]:
    validation, best, sums = Evaluation(jnp.float32(jnp.nan), jnp.int32(0)), state.best, state.running
    if best is not None:
        validation = _evaluate_validation(parts, state, data)
        better = validation.correct > best.correct
        current = Best(validation.correct, state.step, state.params, state.model_state)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), current, best)
    report = Report(
        train=Evaluation(sums.loss / sums.batches, sums.correct),  # NaN without a batch
        train_examples=sums.batches * parts.config.batch_size,
        validation=validation,
        connections=connections(state.topology.masks),
        explored=connections(state.topology.explored),
        moved=sums.moved,
        diverged=state.diverged,
    )
    return state._replace(running=_nothing_yet(), best=best), report
