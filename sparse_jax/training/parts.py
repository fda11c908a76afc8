"""What the functions of a run have in common."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_jax.activations.by_layer import GATES, by_layer
from sparse_jax.activations.scaling import Scaling
from sparse_jax.config import RATES, RunConfig
from sparse_jax.data.augmentation import make_augment
from sparse_jax.data.batches import Data, batch_at
from sparse_jax.data.normalization import make_apply
from sparse_jax.models.layers import INITIALIZERS, make_layers
from sparse_jax.models.registry import make_model
from sparse_jax.topology.birth import fan_scale
from sparse_jax.topology.masks import Masks, Weights
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.patterns import Pattern, parse_pattern
from sparse_jax.topology.rule import Rule
from sparse_jax.topology.schedules import Course
from sparse_jax.training.optimizers import make_optimizer, rate_factor
from sparse_jax.training.problem import Problem
from sparse_jax.training.state import HyperParams
from sparse_jax.training.timeline import last_update, period, stop_step, updates

# The streams of randomness of a run: each is folded into its key, then the step.
PARAMS, TOPOLOGY, ORDER, DROPOUT, UPDATE, WALK, BIRTH, AUGMENT = range(8)


class Parts(NamedTuple):
    """Everything of a run that is static."""

    config: RunConfig
    problem: Problem
    model: nn.Module
    normalize: Callable
    augment: Callable


def make_parts(config: RunConfig, problem: Problem) -> Parts:
    """The model, the normalisation and the augmentation of a configuration."""
    scaling = Scaling(config.activation_alpha, config.activation_beta, config.activation_scale)
    network = make_network(config, problem, config.activation, scaling)
    return Parts(config, problem, network, make_apply(config.normalization), make_augment(config.augmentation))


def make_network(config: RunConfig, problem: Problem, activation: tuple[str, ...], scaling: Scaling) -> nn.Module:
    """The network of a configuration, with the activation functions named, and scaled so."""
    gate = None if config.gate_activation is None else GATES[config.gate_activation]
    layers = make_layers(config.initializer, config.dtype)
    functions = by_layer(activation, config.all_relu_alpha, scaling)
    return make_model(config, problem.classes, functions, gate, layers)


def as_logits(config: RunConfig, outputs: jax.Array) -> jax.Array:
    """What the loss sees of a network's outputs, float32."""
    outputs = outputs.astype(jnp.float32)
    return jax.nn.relu(outputs) if config.relu_logits else outputs


def predict(parts: Parts, params: Any, model_state: Any, x: jax.Array) -> jax.Array:
    """float32[batch, classes], the logits of normalised inputs, as in evaluation."""
    return as_logits(parts.config, parts.model.apply({"params": params, **model_state}, x, train=False))


def make_rule(config: RunConfig, outputs: str, rates: Mapping[str, jax.Array]) -> Rule:
    """The method of a run.

    Args:
      config: resolved; what it does not use is None.
      outputs: the layer of the network's outputs.
      rates: float32[] by name, may be traced.
    """
    chosen = {name: getattr(config, name) for name in Settings._fields if hasattr(config, name)}
    chosen["structure"] = Pattern() if config.structure is None else parse_pattern(config.structure)
    used = {name: value for name, value in chosen.items() if value is not None}
    return METHODS[config.method](Settings(outputs=outputs, rates=rates, **used))


def rates_of(config: RunConfig) -> dict[str, np.float32]:
    """The dynamic settings of a method that the run uses, by name."""
    rates = {name: getattr(config, name) for name in RATES}
    return {name: np.float32(value) for name, value in rates.items() if value is not None}


def rule_of(parts: Parts, hyper: HyperParams) -> Rule:
    """The method of a run with its rates."""
    return make_rule(parts.config, list(parts.problem.kernels)[-1], hyper.rates)


def course(config: RunConfig, problem: Problem, step: jax.Array) -> Course:
    """Where in training an update at a step of the run stands."""
    made, last = max(updates(config, problem), 1), last_update(config, problem)
    left = jnp.maximum(last - step, 0) // period(config)
    return Course(jnp.minimum(step / stop_step(config, problem), 1), (made - left) / made, left)


def learning_rate(parts: Parts, hyper: HyperParams, step: jax.Array) -> jax.Array:
    """float32[], at a step of the run: on its own clock, on which RigL's updates count as steps."""
    return hyper.learning_rate * rate_factor(parts.config, parts.problem, step)


def optimizer(parts: Parts, hyper: HyperParams, step: jax.Array) -> optax.GradientTransformation:
    """The optimiser at a step of the run."""
    return make_optimizer(parts.config, learning_rate(parts, hyper, step), hyper.weight_decay)


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


def initial_variables(parts: Parts, key: jax.Array, data: Data) -> tuple[Any, Any]:
    """Dense parameters, and the model's other variables."""
    example = parts.normalize(data.normalization, data.x[:1])
    variables = parts.model.init(key, example, train=False)
    return variables["params"], {name: value for name, value in variables.items() if name != "params"}


def counting_active(config: RunConfig, weights: Weights, masks: Masks) -> Weights:
    """Initial weights as --init_fan asks for them, for a network with these masks."""
    if config.init_fan != "active":
        return weights
    both = INITIALIZERS[config.initializer].both_fans
    return {name: weight * fan_scale(masks[name], both) for name, weight in weights.items()}


def gradients(
    parts: Parts, key: jax.Array, step: jax.Array, params: Any, model_state: Any, data: Data
) -> tuple[Any, tuple]:
    """Dense gradients at `params`, of the batch of the step, with (loss, correct, model_state)."""
    x, y = training_batch(parts, key, step, data)
    dropout = jax.random.fold_in(jax.random.fold_in(key, DROPOUT), step)

    def loss_fn(params):
        outputs, changed = parts.model.apply(
            {"params": params, **model_state}, x, train=True, rngs={"dropout": dropout}, mutable=list(model_state)
        )
        logits = as_logits(parts.config, outputs)
        loss = training_loss(parts.config.label_smoothing, logits, y)
        correct = jnp.sum(jnp.argmax(logits, -1) == y, dtype=jnp.int32)
        return loss, (loss, correct, changed)

    return jax.grad(loss_fn, has_aux=True)(params)
