"""What the functions of a run have in common."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import DenyList

from sparse_jax.activations.by_layer import GATES, by_layer
from sparse_jax.activations.choice import Operators, by_choice
from sparse_jax.activations.fixed import Activation
from sparse_jax.activations.responses import RESPONSES, responses_of, with_responses
from sparse_jax.activations.scaling import Scaling
from sparse_jax.config import RATES, RunConfig
from sparse_jax.data.augmentation import make_augment
from sparse_jax.data.batches import Data
from sparse_jax.data.normalization import make_apply
from sparse_jax.models.layers import DTYPES, INITIALIZERS, make_layers
from sparse_jax.models.registry import make_model
from sparse_jax.sparse.layer import INPUTS, LINKS, flat, nested, sparse_where
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
from sparse_jax.training.replicas import BATCH
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
