"""What a network scores on a part of the data, and what a run says of itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from sparse_jax.config import RunConfig
from sparse_jax.data.batches import Data
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import NATURES
from sparse_jax.sparse.connectivity import connectivity as linked_connectivity
from sparse_jax.sparse.links import Links
from sparse_jax.topology.masks import Masks, connections
from sparse_jax.topology.paths import Connectivity, connectivity, with_dense_layers
from sparse_jax.training.compaction import widened
from sparse_jax.training.parts import Parts, links_of, predict
from sparse_jax.training.problem import Problem
from sparse_jax.training.state import Best, Evaluation, Report, Running, RunState
from sparse_jax.training.timeline import last_update

EVALUATION_BATCH = 250  # the activations of a large convolutional network have to fit, for every device


def nothing_yet() -> Running:
    """The sums over no batch."""
    return Running(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.int32(0))


def evaluate(parts: Parts, params: Any, model_state: Any, data: Data, start: jax.Array, stop: jax.Array) -> Evaluation:
    """Loss and hits over the rows [start, stop) of the data, in batches that may be partly filled."""
    size = min(EVALUATION_BATCH, data.x.shape[0])

    def add(i, sums):
        first = start + i * size
        at = jnp.minimum(first, data.x.shape[0] - size)
        x, y = (lax.dynamic_slice_in_dim(array, at, size) for array in (data.x, data.y))
        row = at + lax.iota(jnp.int32, size)
        counted = (row >= first) & (row < stop)
        logits = predict(parts, params, model_state, parts.normalize(data.normalization, x))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        hits = jnp.sum(counted & (jnp.argmax(logits, -1) == y), dtype=jnp.int32)
        return Evaluation(sums.loss + jnp.sum(jnp.where(counted, losses, 0)), sums.correct + hits)

    batches = (stop - start + size - 1) // size
    sums = lax.fori_loop(0, batches, add, Evaluation(jnp.float32(0), jnp.int32(0)))
    return Evaluation(sums.loss / (stop - start), sums.correct)


def evaluate_validation(parts: Parts, state: RunState, data: Data) -> Evaluation:
    start = 0 if data.block is not None else parts.problem.train
    stop = start + parts.problem.validation
    return evaluate(parts, *state.evaluated, data, jnp.int32(start), jnp.int32(stop))


def measure(
    config: RunConfig, problem: Problem, masks: Masks, links: dict[str, Links], ones: Callable[..., Any]
) -> Connectivity | None:
    """How much of the network is cut off, layers without a mask included; None where they are not in series.

    Args:
      config: for the model.
      problem: for the layers.
      masks: on the host, or traced; empty for a dense network.
      links: of the layers that are executed sparsely; their masks are of slots, and not looked at.
      ones: see `topology.paths.with_dense_layers`.
    """
    if not OUTLINES[config.model].in_series:
        return None
    layers = list(with_dense_layers(problem.kernels, masks | links, ones).values())
    return linked_connectivity(layers) if links else connectivity(layers)


def _settled(parts: Parts, step: jax.Array) -> jax.Array:
    """Whether the run has the connections that were asked for: methods that prune have them from their last update."""
    if NATURES[parts.config.method].count not in ("schedule", "extra"):
        return jnp.bool_(True)
    return step > last_update(parts.config, parts.problem)


def validate(parts: Parts, state: RunState, data: Data) -> tuple[RunState, Report]:
    validation, best, sums = Evaluation(jnp.float32(jnp.nan), jnp.int32(0)), state.best, state.running
    if best is not None:
        validation = evaluate_validation(parts, state, data)
        better = _settled(parts, state.step) & (validation.correct > best.correct)
        network, masks = widened(*state.evaluated, best.model_state), state.topology.masks
        current = Best(validation.correct, state.step, *network, {name: masks[name] for name in best.masks})
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), current, best)
    masks, links = state.topology.masks, links_of(state.model_state)
    report = Report(
        train=Evaluation(sums.loss / sums.batches, sums.correct),  # NaN without a batch
        train_examples=sums.batches * parts.config.batch_size,
        validation=validation,
        connections=connections(masks),
        explored=connections(state.topology.explored),
        connectivity=measure(parts.config, parts.problem, masks, links, jnp.ones if masks else np.ones),
        moved=sums.moved,
        diverged=state.diverged,
    )
    return state._replace(running=nothing_yet(), best=best), report
