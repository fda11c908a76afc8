"""What a network does on a part of the data, and what a run says of itself."""

import functools
import itertools
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
from sparse_jax.training.parts import Parts, links_of, predict, respond
from sparse_jax.training.problem import Problem
from sparse_jax.training.state import Best, Evaluation, Range, Report, Running, RunState, Tally
from sparse_jax.training.timeline import last_update

EVALUATION_BATCH = 250  # the activations of a large convolutional network have to fit, for every device


def nothing_yet() -> Running:
    """The sums over no batch."""
    return Running(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.int32(0))


def rows_of_batch(
    parts: Parts, data: Data, start: jax.Array, stop: jax.Array, i: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalised inputs and labels of the batch i of the rows [start, stop), and bool[batch], which of them are."""
    size = _size(data)
    first = start + i * size
    at = jnp.minimum(first, data.x.shape[0] - size)
    x, y = (lax.dynamic_slice_in_dim(array, at, size) for array in (data.x, data.y))
    row = at + lax.iota(jnp.int32, size)
    return parts.normalize(data.normalization, x), y, (row >= first) & (row < stop)


def _size(data: Data) -> int:
    return min(EVALUATION_BATCH, data.x.shape[0])


def batches(data: Data, start: jax.Array, stop: jax.Array) -> jax.Array:
    """int32[], how many there are; the last may be partly filled."""
    return (stop - start + _size(data) - 1) // _size(data)


def added(sums: Tally, logits: jax.Array, y: jax.Array, counted: jax.Array) -> Tally:
    """The sums of losses and hits with those of a batch."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    hits = jnp.sum(counted & (jnp.argmax(logits, -1) == y), dtype=jnp.int32)
    return Tally(sums.loss + jnp.sum(jnp.where(counted, losses, 0)), sums.correct + hits)


def tally(parts: Parts, params: Any, model_state: Any, data: Data, start: jax.Array, stop: jax.Array) -> Tally:
    """Loss and hits over the rows [start, stop) of the data."""

    def add(i, sums):
        x, y, counted = rows_of_batch(parts, data, start, stop, i)
        return added(sums, predict(parts, params, model_state, x), y, counted)

    sums = lax.fori_loop(0, batches(data, start, stop), add, Tally(jnp.float32(0), jnp.int32(0)))
    return sums._replace(loss=sums.loss / (stop - start))


def _extremes(responses: dict[int, tuple[jax.Array, ...]], counted: jax.Array) -> Range:
    """Of all neurons, layer after layer: over the examples that count, positions, and uses of a function.

    What is left of the layers is put together first: a reduction for each of them takes as long to compile as the rest.
    """

    def over(reduce, combine, end):
        layers = [
            functools.reduce(combine, [reduce(values, tuple(range(1, values.ndim - 1))) for values in uses])
            for uses in responses.values()
        ]
        of_examples = jnp.concatenate(layers, -1).astype(jnp.float32)
        return reduce(jnp.where(counted[:, None], of_examples, end), 0)

    return Range(over(jnp.min, jnp.minimum, jnp.inf), over(jnp.max, jnp.maximum, -jnp.inf))


def evaluate(
    parts: Parts, params: Any, model_state: Any, data: Data, start: jax.Array, stop: jax.Array
) -> Evaluation:
    """The tally, what is predicted, and what every neuron answers, over the rows [start, stop) of the data."""

    def answers(i):
        x, y, counted = rows_of_batch(parts, data, start, stop, i)
        return *respond(parts, params, model_state, x), y, counted

    def add(i, found):
        sums, predicted, ranges = found
        logits, responses, y, counted = answers(i)
        low, high = _extremes(responses, counted)
        ranges = Range(jnp.minimum(ranges.low, low), jnp.maximum(ranges.high, high))
        predicted = predicted.at[jnp.argmax(logits, -1)].add(counted.astype(jnp.int32))
        return added(sums, logits, y, counted), predicted, ranges

    sizes = {layer: uses[0].shape[-1] for layer, uses in jax.eval_shape(answers, jnp.int32(0))[1].items()}
    ends = list(itertools.accumulate(sizes.values()))
    nothing = Range(jnp.full(ends[-1], jnp.inf), jnp.full(ends[-1], -jnp.inf))
    begun = Tally(jnp.float32(0), jnp.int32(0)), jnp.zeros(parts.problem.classes, jnp.int32), nothing
    sums, predicted, ranges = lax.fori_loop(0, batches(data, start, stop), add, begun)
    by_layer = zip(sizes, *(jnp.split(array, ends[:-1]) for array in ranges), strict=True)
    return Evaluation(
        sums.loss / (stop - start), sums.correct, predicted, {layer: Range(*both) for layer, *both in by_layer}
    )


def tally_validation(parts: Parts, state: RunState, data: Data) -> Tally:
    start = 0 if data.block is not None else parts.problem.train
    stop = start + parts.problem.validation
    return tally(parts, *state.evaluated, data, jnp.int32(start), jnp.int32(stop))


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
    validation, best, sums = Tally(jnp.float32(jnp.nan), jnp.int32(0)), state.best, state.running
    if best is not None:
        validation = tally_validation(parts, state, data)
        better = _settled(parts, state.step) & (validation.correct > best.correct)
        network, masks = widened(*state.evaluated, best.model_state), state.topology.masks
        current = Best(validation.correct, state.step, *network, {name: masks[name] for name in best.masks})
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), current, best)
    masks, links = state.topology.masks, links_of(state.model_state)
    report = Report(
        train=Tally(sums.loss / sums.batches, sums.correct),  # NaN without a batch
        train_examples=sums.batches * parts.config.batch_size,
        validation=validation,
        connections=connections(masks),
        explored=connections(state.topology.explored),
        connectivity=measure(parts.config, parts.problem, masks, links, jnp.ones if masks else np.ones),
        moved=sums.moved,
        diverged=state.diverged,
    )
    return state._replace(running=nothing_yet(), best=best), report
