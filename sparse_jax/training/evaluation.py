"""What a network scores on a part of the data, and what a run says of itself."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sparse_jax.data.batches import Data
from sparse_jax.topology.masks import connections
from sparse_jax.training.parts import Parts
from sparse_jax.training.state import Best, Evaluation, Report, Running, RunState

EVALUATION_BATCH = 1000


def nothing_yet() -> Running:
    """The sums over no batch."""
    return Running(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.int32(0))


def evaluate(
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


def evaluate_validation(parts: Parts, state: RunState, data: Data) -> Evaluation:
    start, stop = parts.problem.train, parts.problem.train + parts.problem.validation
    return evaluate(parts, state.params, state.model_state, data, jnp.int32(start), jnp.int32(stop))


def validate(parts: Parts, state: RunState, data: Data) -> tuple[RunState, Report]:
    validation, best, sums = Evaluation(jnp.float32(jnp.nan), jnp.int32(0)), state.best, state.running
    if best is not None:
        validation = evaluate_validation(parts, state, data)
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
    return state._replace(running=nothing_yet(), best=best), report
