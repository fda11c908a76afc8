"""The batches of a run, and the gradients of its loss there."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_jax.activations.choice import CHOICES
from sparse_jax.data.batches import Data, batch_at
from sparse_jax.sparse.growth import Sensitivity
from sparse_jax.sparse.layer import INPUTS, LINKS, PROBES, flat, nested
from sparse_jax.training.parts import AUGMENT, DROPOUT, ORDER, Parts, as_logits
from sparse_jax.training.replicas import BATCH, averaged, part_of, whole


def _raw_batch(parts: Parts, key: jax.Array, step: jax.Array, data: Data) -> tuple[jax.Array, jax.Array]:
    order = jax.random.fold_in(key, ORDER)
    return batch_at(data, order, step, n=parts.problem.train, batch_size=parts.config.batch_size)


def batch(parts: Parts, key: jax.Array, step: jax.Array, data: Data) -> tuple[jax.Array, jax.Array]:
    """Normalised inputs and labels of the batch of a step, without augmentation; `key` is the run's."""
    x, y = _raw_batch(parts, key, step, data)
    return parts.normalize(data.normalization, x), y


def training_batch(parts: Parts, key: jax.Array, step: jax.Array, data: Data) -> tuple[jax.Array, jax.Array]:
    """The same batch as training sees it: augmented."""
    x, y = _raw_batch(parts, key, step, data)
    x = parts.augment(jax.random.fold_in(jax.random.fold_in(key, AUGMENT), step), x, data.levels)
    return parts.normalize(data.normalization, x), y


def training_loss(smoothing: float, logits: jax.Array, y: jax.Array) -> jax.Array:
    """The mean cross-entropy with smoothed labels, (1 − α) log 1/p_y + α/K Σ_k log 1/p_k over K classes.

    Label smoothing of Szegedy et al. 2016 (arXiv:1512.00567, section 7). What is evaluated has no smoothing.

    Args:
      smoothing: α in [0, 1).
      logits: float32[batch, K].
      y: int32[batch].
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    if smoothing:
        losses = (1 - smoothing) * losses - smoothing * jax.nn.log_softmax(logits).mean(-1)
    return losses.mean()


def gradients(
    parts: Parts, key: jax.Array, step: jax.Array, params: Any, model_state: Any, data: Data
) -> tuple[Any, tuple]:
    """Gradients at `params`, of the batch of the step, dense of kernels with masks; (loss, correct, model_state)."""
    (grads, _), aux, _ = _gradients(parts, key, step, params, model_state, data, {})
    return grads, aux


def gradients_everywhere(
    parts: Parts, key: jax.Array, step: jax.Array, params: Any, model_state: Any, data: Data
) -> tuple[Any, dict[str, Sensitivity]]:
    """Gradients at `params`, and what those of absent connections are made of, by layer that is executed sparsely."""
    probe = partial(_gradients, parts, key, step, params, model_state, data)
    inputs = jax.eval_shape(lambda: probe({})[2])
    zeros = {name: jnp.zeros((parts.problem.kernels[name][1], x.shape[1])) for name, x in flat(inputs).items()}
    (grads, outputs), _, inputs = probe(nested(zeros))
    inputs, outputs = flat(inputs), flat(outputs)
    if parts.batch_devices > 1:  # a loss is the mean over a part of the batch
        inputs = {name: whole(x) for name, x in inputs.items()}
        outputs = {name: whole(y) / parts.batch_devices for name, y in outputs.items()}
    return grads, {name: Sensitivity(inputs[name], outputs[name]) for name in inputs}


def _gradients(
    parts: Parts, key: jax.Array, step: jax.Array, params: Any, model_state: Any, data: Data, probes: Any
) -> tuple[tuple[Any, Any], tuple, Any]:
    """Gradients at parameters and probes, (loss, correct, model_state), and the inputs of what is executed sparsely.

    Of devices that share the batch, probes and inputs are those of a part of it, all else is of the whole.
    """
    x, y = training_batch(parts, key, step, data)
    dropout = jax.random.fold_in(jax.random.fold_in(key, DROPOUT), step)
    if parts.batch_devices > 1:
        x, y = (part_of(rows, parts.batch_devices) for rows in (x, y))
        dropout = jax.random.fold_in(dropout, jax.lax.axis_index(BATCH))
    changing = [name for name in model_state if name not in (LINKS, CHOICES)]

    def loss_fn(params, probes):
        variables = {"params": params, **model_state, PROBES: probes}
        outputs, changed = parts.model.apply(
            variables, x, train=True, rngs={"dropout": dropout}, mutable=[*changing, INPUTS]
        )
        inputs = changed.pop(INPUTS, {})
        logits = as_logits(parts.config, outputs)
        loss = training_loss(parts.config.label_smoothing, logits, y)
        correct = jnp.sum(jnp.argmax(logits, -1) == y, dtype=jnp.int32)
        return loss, ((loss, correct, model_state | changed), inputs)

    grads, (aux, inputs) = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)(params, probes)
    if parts.batch_devices > 1:
        (grads, outputs), (loss, correct, model_state) = grads, aux
        grads, aux = (averaged(grads), outputs), (averaged(loss), jax.lax.psum(correct, BATCH), model_state)
    return grads, aux, inputs
