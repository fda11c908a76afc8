"""The training of one run as pure functions: initialise, some steps, one topology update, an evaluation."""

from collections.abc import Callable
from typing import Any

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
from sparse_jax.training.optimizers import make_optimizer, zero_slots
from sparse_jax.training.problem import Problem
from sparse_jax.training.state import Best, Evaluation, HyperParams, Report, Running, RunState, TrainFns
from sparse_jax.training.timeline import last_update

EVALUATION_BATCH = 1000

# The streams of randomness of a run: each is folded into its key, then the step.
PARAMS, TOPOLOGY, ORDER, DROPOUT, UPDATE = range(5)


def make_rule(config: RunConfig, drop_fraction: jax.Array, shrink_rate: jax.Array) -> Rule:
    """The method of a run; drop fraction and shrink rate, float32[], may be traced."""
    course = DROP_SCHEDULES.get(config.drop_schedule, jnp.zeros_like)
    density = DENSITY_SCHEDULES.get(config.density_schedule, jnp.zeros_like)
    return METHODS[config.method](Settings(lambda progress: drop_fraction * course(progress), density, shrink_rate))


def _fresh(problem: Problem, params: Any, model_state: Any) -> tuple[Running, Best | None]:
    running = Running(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.int32(0))
    best = Best(jnp.float32(-1), jnp.int32(0), params, model_state) if problem.validation else None
    return running, best


def make_train(config: RunConfig, problem: Problem) -> TrainFns:
    """The functions that train one run, ready for jit, vmap, map and shard_map.

    Args:
      config: the resolved configuration; its dynamic settings are ignored, they come with `HyperParams`.
      problem: sizes and shapes, of the same configuration.
    """
    model = MODELS[config.model](config, problem.classes, by_layer(config.activation, config.all_relu_alpha))
    normalize = make_apply(config.normalization)

    def optimizer(hyper: HyperParams) -> optax.GradientTransformation:
        return make_optimizer(config, hyper.learning_rate, hyper.weight_decay, problem.steps)

    def init(hyper: HyperParams, data: Data) -> RunState:
        key = jax.random.key(hyper.seed)
        example = normalize(data.normalization, data.x[:1])
        variables = model.init(jax.random.fold_in(key, PARAMS), example, train=False)
        model_state = {name: value for name, value in variables.items() if name != "params"}
        masks = random_masks(jax.random.fold_in(key, TOPOLOGY), problem.masked_shapes, hyper.start)
        params = apply_masks(variables["params"], masks)
        tx = optimizer(hyper)
        opt_state = zero_slots(tx, tx.init(params), params, masks)
        running, best = _fresh(problem, params, model_state)
        return RunState(
            jnp.int32(0), params, model_state, opt_state, start_topology(masks), key, running, jnp.bool_(False), best
        )

    def gradients(state: RunState, data: Data) -> tuple[Any, tuple]:
        """Dense gradients at the masked weights, of the batch of this step."""
        order = jax.random.fold_in(state.key, ORDER)
        x, y = batch_at(data, order, state.step, n=problem.train, batch_size=config.batch_size)
        x = normalize(data.normalization, x)
        dropout = jax.random.fold_in(jax.random.fold_in(state.key, DROPOUT), state.step)

        def loss_fn(params):
            logits, model_state = model.apply(
                {"params": params, **state.model_state},
                x, train=True, rngs={"dropout": dropout}, mutable=list(state.model_state),
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            correct = jnp.sum(jnp.argmax(logits, -1) == y, dtype=jnp.int32)
            return loss, (loss, correct, model_state)

        return jax.grad(loss_fn, has_aux=True)(state.params)

    def step(tx: optax.GradientTransformation, state: RunState, data: Data) -> RunState:
        grads, (loss, correct, model_state) = gradients(state, data)
        masks = state.topology.masks
        grads = apply_masks(grads, masks)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = apply_masks(optax.apply_updates(state.params, updates), masks)
        running = state.running
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

    def steps(state: RunState, hyper: HyperParams, data: Data, count: jax.Array) -> RunState:
        tx = optimizer(hyper)
        return lax.fori_loop(0, count, lambda _, state: step(tx, state, data), state)

    def update(state: RunState, hyper: HyperParams, data: Data) -> RunState:
        rule = make_rule(config, hyper.drop_fraction, hyper.shrink_rate)
        grads = select(gradients(state, data)[0], problem.masked) if rule.needs_gradient else None
        key = jax.random.fold_in(jax.random.fold_in(state.key, UPDATE), state.step)
        progress = jnp.minimum(state.step / (config.stop_fraction * problem.steps), 1)
        accuracy = state.topology.accuracy
        if rule.count == "accuracy":
            accuracy = evaluate(state.params, state.model_state, data, *validation_rows).accuracy
        course = jnp.minimum(state.step / last_update(config, problem), 1)
        counts = target_counts(rule, course, accuracy, hyper.start, hyper.counts, state.topology)
        weights = select(state.params, problem.masked)
        topology, info = evolve(rule, key, progress, counts, state.topology, weights, grads)
        params = apply_masks(state.params, info.survivors)
        running = state.running._replace(moved=state.running.moved + info.moved)
        return state._replace(
            step=state.step + update_steps,
            params=params,
            opt_state=zero_slots(optimizer(hyper), state.opt_state, params, info.survivors),
            topology=topology._replace(accuracy=jnp.maximum(topology.accuracy, accuracy)),
            running=running,
        )

    evaluate = _make_evaluate(model, normalize)
    validation_rows = jnp.int32(problem.train), jnp.int32(problem.train + problem.validation)
    update_steps = int(make_rule(config, jnp.float32(0), jnp.float32(0)).update == "instead_of_step")

    def validate(state: RunState, data: Data) -> tuple[RunState, Report]:
        nothing = Evaluation(jnp.float32(jnp.nan), jnp.float32(jnp.nan))
        validation, best = nothing, state.best
        if problem.validation:
            validation = evaluate(state.params, state.model_state, data, *validation_rows)
            better = validation.accuracy > best.accuracy
            current = Best(validation.accuracy, state.step, state.params, state.model_state)
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), current, best)
        sums, batches = state.running, jnp.maximum(state.running.batches, 1)
        train = Evaluation(sums.loss / batches, sums.correct / (batches * config.batch_size))
        active, explored = connections(state.topology.masks), connections(state.topology.explored)
        report = Report(train, validation, active, explored, sums.moved, state.diverged)
        running, _ = _fresh(problem, None, None)
        return state._replace(running=running, best=best), report

    return TrainFns(init, steps, update, evaluate, validate, update_steps)


def _make_evaluate(model: Any, normalize: Callable) -> Callable:
    def evaluate(params: Any, model_state: Any, data: Data, start: jax.Array, stop: jax.Array) -> Evaluation:
        """Loss and accuracy over the rows [start, stop) of the data, in batches that may be partly filled."""
        size = min(EVALUATION_BATCH, data.x.shape[0])

        def add(i, sums):
            first = start + i * size
            at = jnp.minimum(first, data.x.shape[0] - size)
            x, y = (lax.dynamic_slice_in_dim(array, at, size) for array in (data.x, data.y))
            row = at + lax.iota(jnp.int32, size)
            counted = (row >= first) & (row < stop)
            x = normalize(data.normalization, x)
            logits = model.apply({"params": params, **model_state}, x, train=False)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            loss = sums[0] + jnp.sum(jnp.where(counted, losses, 0))
            return loss, sums[1] + jnp.sum(counted & (jnp.argmax(logits, -1) == y), dtype=jnp.int32)

        batches = (stop - start + size - 1) // size
        loss, correct = lax.fori_loop(0, batches, add, (jnp.float32(0), jnp.int32(0)))
        count = (stop - start).astype(jnp.float32)
        return Evaluation(loss / count, correct / count)

    return evaluate
