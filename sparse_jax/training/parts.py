"""What the functions of a run have in common."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import DenyList

from sparse_jax.activations.by_layer import GATES, by_layer
from sparse_jax.activations.choice import CHOICES, Operators, by_choice
from sparse_jax.activations.fixed import Activation
from sparse_jax.activations.responses import RESPONSES, responses_of, with_responses
from sparse_jax.activations.scaling import Scaling
from sparse_jax.config import RATES, RunConfig
from sparse_jax.data.augmentation import make_augment
from sparse_jax.data.batches import Data, batch_at
from sparse_jax.data.normalization import make_apply
from sparse_jax.models.layers import DTYPES, INITIALIZERS, make_layers
from sparse_jax.models.registry import make_model
from sparse_jax.sparse.growth import Sensitivity
from sparse_jax.sparse.layer import INPUTS, LINKS, PROBES, flat, nested, sparse_where
from sparse_jax.sparse.layer import fan_scale as links_fan_scale
from sparse_jax.sparse.links import Links
from sparse_jax.topology.birth import fan_scale
from sparse_jax.topology.masks import Masks, Weights
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.patterns import Pattern, parse_pattern
from sparse_jax.topology.rule import Rule
from sparse_jax.topology.schedules import Course
from sparse_jax.training.optimizers import make_optimizer, one_of, rate_factor
from sparse_jax.training.problem import Problem
from sparse_jax.training.replicas import BATCH, averaged, part_of, whole
from sparse_jax.training.state import HyperParams
from sparse_jax.training.timeline import last_update, period, stop_step, updates

# The streams of randomness of a run: each is folded into its key, then the step.
PARAMS, TOPOLOGY, ORDER, DROPOUT, UPDATE, WALK, BIRTH, AUGMENT, FRESH, ABLATION, SEARCH = range(11)


class Choices(NamedTuple):
    """What settings may be that are static in other programs, and here are data: a run comes with its `Chosen`."""

    operators: Operators  # of the activation functions
    optimizers: tuple[str, ...]
    lr_schedules: tuple[str, ...]


class Parts(NamedTuple):
    """Everything of a run that is static."""

    config: RunConfig
    problem: Problem
    choices: Choices | None  # instead of what the configuration says of them
    model: nn.Module
    normalize: Callable
    augment: Callable
    batch_devices: int  # that share the batches of the run


def make_parts(config: RunConfig, problem: Problem, choices: Choices | None = None, batch_devices: int = 1) -> Parts:
    """The model, the normalisation and the augmentation of a configuration."""
    functions = functions_of(config) if choices is None else by_choice(choices.operators)
    network = make_network(config, problem, functions, batch_axis=BATCH if batch_devices > 1 else None)
    augment = make_augment(config.augmentation)
    return Parts(config, problem, choices, network, make_apply(config.normalization), augment, batch_devices)


def functions_of(config: RunConfig) -> Callable[[int], Activation]:
    """The activation functions of a configuration, by layer index."""
    scaling = Scaling(config.activation_alpha, config.activation_beta, config.activation_scale)
    return by_layer(config.activation, config.all_relu_alpha, scaling)


def make_network(
    config: RunConfig,
    problem: Problem,
    functions: Callable[[int], Activation],
    dense: Callable[[str, int, bool], nn.Module] | None = None,
    batch_axis: str | None = None,
) -> nn.Module:
    """The network of a configuration, with these activation functions.

    `dense` makes its dense layers (`models.layers.Layers`); None makes those of the configuration. `batch_axis` is that
    of devices that share its batches.
    """
    gate = None if config.gate_activation is None else GATES[config.gate_activation]
    layers = make_layers(config.initializer, config.dtype, batch_axis)
    if dense is None:
        dense = sparse_where(problem.slots, layers.dense, config.initializer, DTYPES[config.dtype])
    layers = layers._replace(dense=dense)
    return make_model(config, problem.classes, with_responses(functions), gate, layers)


def as_logits(config: RunConfig, outputs: jax.Array) -> jax.Array:
    """What the loss sees of a network's outputs, float32."""
    outputs = outputs.astype(jnp.float32)
    return jax.nn.relu(outputs) if config.relu_logits else outputs


def predict(parts: Parts, params: Any, model_state: Any, x: jax.Array) -> jax.Array:
    """float32[batch, classes], the logits of normalised inputs, as in evaluation."""
    return as_logits(parts.config, parts.model.apply({"params": params, **model_state}, x, train=False))


def respond(
    parts: Parts, params: Any, model_state: Any, x: jax.Array
) -> tuple[jax.Array, dict[int, tuple[jax.Array, ...]]]:
    """The logits of `predict`, and the values of the activation functions (`activations.responses`)."""
    variables = {"params": params, **model_state}
    outputs, kept = parts.model.apply(variables, x, train=False, mutable=[RESPONSES])
    return as_logits(parts.config, outputs), responses_of(kept[RESPONSES])


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


def weights_key(config: RunConfig, hyper: HyperParams) -> jax.Array:
    """The key of the weights before the first step."""
    key = jax.random.fold_in(jax.random.key(hyper.weights_seed), PARAMS)
    return jax.random.fold_in(key, FRESH) if config.initial_weights == "fresh" else key


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
    if parts.choices is None:
        return hyper.learning_rate * rate_factor(parts.config, parts.problem, step)
    configs = [dataclasses.replace(parts.config, lr_schedule=name) for name in parts.choices.lr_schedules]
    factors = jnp.stack([jnp.float32(rate_factor(config, parts.problem, step)) for config in configs])
    return hyper.learning_rate * factors[hyper.chosen.lr_schedule]


def optimizer(parts: Parts, hyper: HyperParams, step: jax.Array) -> optax.GradientTransformation:
    """The optimiser at a step of the run."""
    rate = learning_rate(parts, hyper, step)
    if parts.choices is None:
        return make_optimizer(parts.config, rate, hyper.weight_decay)
    common = dataclasses.replace(parts.config, momentum=hyper.chosen.momentum)
    configs = [dataclasses.replace(common, optimizer=name) for name in parts.choices.optimizers]
    return one_of([make_optimizer(config, rate, hyper.weight_decay) for config in configs], hyper.chosen.optimizer)


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


def links_of(model_state: Any) -> dict[str, Links]:
    """The connections of the layers that are executed sparsely, by layer."""
    return flat(model_state[LINKS]) if LINKS in model_state else {}


def with_links(model_state: Any, links: dict[str, Links]) -> Any:
    """The other variables of a model, with the connections of the layers that are executed sparsely."""
    return model_state | {LINKS: nested(links)} if links else model_state


def initial_variables(parts: Parts, key: jax.Array, data: Data, links: dict[str, Links]) -> tuple[Any, Any]:
    """Parameters, dense but where a layer has `links`, and the model's other variables."""
    example, given = parts.normalize(data.normalization, data.x[:1]), with_links({}, links)
    made = DenyList((LINKS, INPUTS, RESPONSES))
    _, variables = parts.model.apply(given, example, train=False, rngs={"params": key}, mutable=made)
    return variables["params"], {name: value for name, value in variables.items() if name != "params"} | given


def counting_active(
    config: RunConfig, weights: Weights, masks: Masks, links: dict[str, Links], before: dict[str, Links] | None = None
) -> Weights:
    """Initial weights as --init_fan asks for them, for a network with these masks, and links as they were `before`."""
    if config.init_fan != "active":
        return weights
    both = INITIALIZERS[config.initializer].both_fans
    scales = {name: fan_scale(mask, both) for name, mask in masks.items()}
    earlier = links if before is None else before
    scales |= {name: links_fan_scale(of_layer, earlier[name], both) for name, of_layer in links.items()}
    return {name: weight * scales[name] for name, weight in weights.items()}


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
