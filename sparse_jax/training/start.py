"""How a run begins: its first weights and masks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_jax.activations.by_layer import by_layer
from sparse_jax.activations.choice import CHOICES, chosen
from sparse_jax.activations.scaling import UNSCALED
from sparse_jax.data.batches import Data
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.sparse.evolution import in_use
from sparse_jax.sparse.initial import at_slots, first_links
from sparse_jax.sparse.links import Links, make_links
from sparse_jax.topology.allocation import Shapes
from sparse_jax.topology.initial import INITIAL, InitialSettings, correlation_masks, from_scores_globally
from sparse_jax.topology.masks import Counts, Masks, put, select
from sparse_jax.topology.moves import choose
from sparse_jax.topology.rule import Rule
from sparse_jax.training import scores
from sparse_jax.training.average import Average
from sparse_jax.training.evaluation import nothing_yet
from sparse_jax.training.gradients import batch
from sparse_jax.training.network import first_network
from sparse_jax.training.parts import (
    TOPOLOGY,
    Parts,
    counting_active,
    initial_variables,
    make_network,
    make_parts,
    optimizer,
    predict,
    rule_of,
    weights_key,
)
from sparse_jax.training.state import Best, HyperParams, Rewind, RunState

CORRELATED_EXAMPLES = 5000  # of the training part, for --initial_topology=correlation


def init(parts: Parts, hyper: HyperParams, data: Data) -> RunState:
    """The state before the first step."""
    key = jax.random.key(hyper.seed)
    rule = rule_of(parts, hyper)
    links = _first_links(parts, hyper, key)
    dense, model_state = _first_weights(parts, hyper, data, links)
    masks = _first_masks(parts, rule, hyper, key, dense, model_state, data) if rule.masked else {}
    if not hyper.network:  # weights that are given stay as they are
        dense = put(dense, counting_active(parts.config, select(dense, masks | links), masks, links))
    slots = {name: in_use(of_layer) for name, of_layer in links.items()}
    network = first_network(rule, optimizer(parts, hyper, jnp.int32(0)), dense, masks | slots)
    network = network._replace(topology=network.topology._replace(explored=masks))
    best = Best(jnp.int32(-1), jnp.int32(0), network.params, model_state, masks)
    return RunState(
        **network._asdict(),
        step=jnp.int32(0),
        model_state=model_state,
        key=key,
        running=nothing_yet(),
        diverged=jnp.bool_(False),
        best=best if parts.problem.validation else None,
        rewind=Rewind(dense, model_state) if rule.rewind == "weights" else None,
        average=Average(network.params, model_state) if parts.config.ema else None,
    )


def _first_weights(parts: Parts, hyper: HyperParams, data: Data, links: dict[str, Links]) -> tuple[Any, Any]:
    """Parameters, dense but where a layer has `links`, and the model's other variables: given, or drawn."""
    params, model_state = initial_variables(parts, weights_key(parts.config, hyper), data, links)
    if hyper.network:
        params, model_state = hyper.network["params"], model_state | hyper.network["model_state"]
    if parts.choices is not None:
        choices = chosen(model_state[CHOICES], hyper.chosen.operator, hyper.chosen.scaled)
        model_state = model_state | {CHOICES: choices}
    return params, model_state


def _first_links(parts: Parts, hyper: HyperParams, key: jax.Array) -> dict[str, Links]:
    """The connections of the layers that are executed sparsely; `key` is the run's."""
    slots, shapes, name = parts.problem.slots, parts.problem.kernels, _family(parts)
    if hyper.masks:
        given = {layer: at_slots(hyper.masks[layer], slots[layer]) for layer in slots}
        return {layer: make_links(*at, hyper.start[layer], shapes[layer]) for layer, at in given.items()}
    name = "fan_in" if parts.config.structure == "fan_in" else name
    keys = jax.random.split(jax.random.fold_in(key, TOPOLOGY), len(slots))
    drawn = zip(sorted(slots), keys, strict=True)
    return {
        layer: first_links(name, layer_key, shapes[layer], hyper.start[layer], slots[layer])
        for layer, layer_key in drawn
    }


def _family(parts: Parts) -> str:
    """The first masks that are not given: given ones that are shuffled are random ones of as many connections."""
    return "random" if parts.config.shuffle_masks else parts.config.initial_topology


def _first_masks(
    parts: Parts, rule: Rule, hyper: HyperParams, key: jax.Array, params: Any, model_state: Any, data: Data
) -> Masks:
    """The masks that the configuration names, of layers that have one; `params` are dense, `key` is the run's."""
    name, draw = _family(parts), jax.random.fold_in(key, TOPOLOGY)
    shapes = {layer: shape for layer, shape in parts.problem.masked_shapes.items() if layer not in parts.problem.slots}
    if hyper.masks:
        return {layer: hyper.masks[layer] for layer in shapes}
    if name in INITIAL:
        return drawn_masks(rule, name, draw, shapes, hyper.start)
    if name == "correlation":
        x = parts.normalize(data.normalization, data.x[: min(CORRELATED_EXAMPLES, parts.problem.train)])
        first = next(iter(parts.problem.kernels))
        return correlation_masks(draw, shapes, hyper.start, first, x.reshape(x.shape[0], -1))
    return _scored_masks(parts, rule, hyper, key, params, model_state, data)


def drawn_masks(rule: Rule, name: str, key: jax.Array, shapes: Shapes, counts: Counts) -> Masks:
    """Masks of a family of random graphs, with as many connections as the family can have of the counts."""
    if name == "random" and rule.pattern.kind != "none":
        keys = zip(sorted(shapes), jax.random.split(key, len(shapes)), strict=True)
        bits = {layer: jax.random.bits(layer_key, shapes[layer], jnp.uint32) for layer, layer_key in keys}
        return choose(rule._replace(scope="layer"), bits, counts)
    settings = InitialSettings(*(rule.rates.get(rate) for rate in ("rewiring", "degree_exponent")))
    return INITIAL[name](key, shapes, counts, settings)


def _scored_masks(
    parts: Parts, rule: Rule, hyper: HyperParams, key: jax.Array, params: Any, model_state: Any, data: Data
) -> Masks:
    """The connections that a score of the untrained network ranks highest, on the first batch without augmentation.

    In float32, whatever the network's arithmetic: half precision would confuse ranks.
    """
    config = dataclasses.replace(parts.config, dtype="float32")
    parts = make_parts(config, parts.problem, parts.choices, parts.batch_devices)
    name, names = parts.config.initial_topology, parts.problem.masked
    total = sum(hyper.start.values()) if parts.config.allocation == "global" else None
    x, y = batch(parts, key, jnp.int32(0), data)

    def logits(params):
        return predict(parts, params, model_state, x)

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(logits(params), y).mean()

    in_series = OUTLINES[parts.config.model].in_series
    level = 1.0 if in_series else scores.SYNFLOW_LEVEL  # of what goes in, and of what comes out

    def linear(params):
        model = make_network(parts.config, parts.problem, by_layer(("linear",), None, UNSCALED))
        ones = jnp.full_like(x[:1], level)
        return level * model.apply({"params": params, **model_state}, ones, train=False)

    if name == "synflow":
        rounds = scores.SYNFLOW_ROUNDS
        if total is None:
            return scores.synflow(linear, params, names, hyper.start, rounds, in_series=in_series)
        return scores.synflow_globally(linear, params, names, total, rounds, in_series=in_series)
    ranked = {
        "magnitude": lambda: scores.magnitude(params, names),
        "snip": lambda: scores.snip(loss, params, names),
        "grasp": lambda: scores.grasp(logits, y, params, names, scores.GRASP_TEMPERATURE),
    }[name]()
    if total is not None:
        return from_scores_globally(ranked, total)
    return choose(rule._replace(scope="layer"), ranked, hyper.start)
