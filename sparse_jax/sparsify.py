"""Sparse training in a loop of your own: any model whose parameters are a pytree, any optax optimiser.

    sparsifier = make_sparsifier(params, optax.adam(1e-3), steps=10_000, method="rigl", sparsity=0.9)
    network = sparsifier.init(key, params)
    for step in range(10_000):
        grads = gradients(network.params, batch(step))
        move = sparsifier.update if sparsifier.update_due(step) else sparsifier.step
        network = move(key, step, network, grads)

The network's parameters are exactly zero outside its masks, its optimiser slots too, and `grads` are the dense
gradients at these parameters. `step` and `update` are pure and may be jitted; `configs/tutorials` has whole programs.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_jax.config import RunConfig
from sparse_jax.errors import UserError
from sparse_jax.recipes import known_masks
from sparse_jax.study.foreign import check_masks, maskable, resolved, with_criteria
from sparse_jax.study.mask_file import as_mask
from sparse_jax.study.resolve import left_out, masks_of
from sparse_jax.study.sources import lent_to
from sparse_jax.topology.criteria import Criterion
from sparse_jax.topology.masks import Masks, select
from sparse_jax.topology.moves import choose
from sparse_jax.topology.rule import Rule
from sparse_jax.training.network import Network, descend, first_network, rewire
from sparse_jax.training.parts import TOPOLOGY, UPDATE, WALK, course, make_rule, rates_of
from sparse_jax.training.problem import Problem
from sparse_jax.training.scores import magnitude
from sparse_jax.training.start import drawn_masks
from sparse_jax.training.timeline import update_due

Rate = float | Callable[[jax.Array], jax.Array]


class Sparsifier(NamedTuple):
    """What a training loop calls. `key` is used for nothing else, `step` counts from 0; draws fold it in."""

    init: Callable[..., Network]  # (key, params, masks=None) -> network, before the first step
    step: Callable[..., Network]  # (key, step, network, grads) -> network, after an optimiser step
    update: Callable[..., Network]  # (key, step, network, grads, accuracy=None, fresh=None) -> the same, masks moved
    update_due: Callable[[int], bool]  # step -> whether it is `update` that takes this step
    connections: Callable[[Network], dict[str, int]]  # the active connections of every layer that has a mask


class _Plan(NamedTuple):
    """What is static of a sparsifier."""

    config: RunConfig
    problem: Problem
    shapes: Mapping[str, tuple[int, ...]]  # of the leaves, as they are
    start: dict[str, np.ndarray]  # int32[] by layer
    final: dict[str, np.ndarray]
    rule: Rule
    tx: optax.GradientTransformation
    learning_rate: Rate | None


def make_sparsifier(
    params: Any,
    tx: optax.GradientTransformation,
    *,
    steps: int,
    layers: str = r"kernel$",
    steps_per_epoch: int | None = None,
    learning_rate: Rate | None = None,
    outputs: str = "",
    input_axes: Mapping[str, int] | None = None,
    drop: Criterion | None = None,
    grow: Criterion | None = None,
    **chosen: Any,
) -> Sparsifier:
    """The functions that train a network sparsely.

    An update is one call with one gradient. Where a method takes an optimiser step besides, the step comes first,
    as in the code of ITOP, and the scores see the gradient of that step; the studies of this project compute a
    new one. RigL's updates take the place of a step in both.

    Args:
      params: a pytree of arrays, or of their shapes; leaves are named by their path, "Dense_0/kernel".
      tx: any optax optimiser with its own learning rate.
      steps: of the whole training, on which schedules of the method run.
      layers: a regular expression; the leaves whose name it finds are maskable, inputs before outputs in their axes.
        The setting `dense_layers` exempts some of them.
      steps_per_epoch: for intervals in epochs, as SET has them.
      learning_rate: the one `tx` uses, or step -> rate; only deepr and birth="gradient" look at it.
      outputs: the leaf of the network's outputs, whose neurons are never cut off; only the ablation of srigl and
        importance_pruning look at it.
      input_axes: regular expression -> how many leading axes of a leaf are inputs, where it is not all but the last:
        {"(query|key|value)/kernel$": 1} for flax's attention. It counts for the allocation.
      drop, grow: criteria of your own in the place of the settings drop_score and grow_score.
      **chosen: settings of the sections "topology" and "method" as launch/train.py --help names them: method="set",
        sparsity=0.9, interval=100, allocation="erk", drop_fraction=0.3, structure="2:4", ...

    Raises:
      UserError: for settings that do not exist, do not fit each other or that the method does not use, and names
        that match no leaf. Warns where a structure leaves out connections because they do not divide.
    """
    shapes = maskable(params, layers)
    config, problem, connections = resolved(chosen, shapes, input_axes or {}, steps, steps_per_epoch, outputs)
    if notice := left_out(config, connections):
        warnings.warn(notice, stacklevel=2)
    rule = with_criteria(config, make_rule(config, outputs, rates_of(config)), chosen, drop=drop, grow=grow)
    if learning_rate is None and (rule.walks or rule.birth == "gradient"):
        raise UserError(f"{'method=deepr' if rule.walks else 'birth=gradient'} needs the learning_rate")
    counts = ({name: np.int32(n) for name, n in level.items()} for level in (connections.start, connections.final))
    plan = _Plan(config, problem, {name: shapes[name] for name in problem.masked}, *counts, rule, tx, learning_rate)
    return Sparsifier(
        init=partial(_init, plan),
        step=partial(_step, plan),
        update=partial(_update, plan),
        update_due=partial(_due, plan),
        connections=lambda network: {name: int(mask.sum()) for name, mask in network.topology.masks.items()},
    )


def _init(plan: _Plan, key: jax.Array, params: Any, masks: Masks | None = None) -> Network:
    """The network before the first step, with the given masks or those that the settings name.

    Args:
      key: a PRNG key, used for this network only; the same as in `step` and `update`.
      params: dense.
      masks: bool by layer, of the shape of its weights; under a method with a constant count they say how many
        connections there are, whatever the sparsity. Traced masks are not checked.
    """
    config, rule = plan.config, plan.rule
    if not rule.masked:
        return first_network(rule, plan.tx, params, {})
    if masks is not None:
        check_masks(rule, plan.shapes, plan.start, masks)
        masks = {name: jnp.asarray(mask) for name, mask in masks.items()}
    elif known_masks(config.initial_topology):
        given = masks_of(config, plan.problem, lent_to(config, {}))
        masks = {name: jnp.asarray(as_mask(mask)) for name, mask in given.items()}
    elif config.initial_topology == "magnitude":
        masks = choose(rule._replace(scope="layer"), magnitude(params, plan.problem.masked), plan.start)
    else:
        draw = jax.random.fold_in(key, TOPOLOGY)
        masks = drawn_masks(rule, config.initial_topology, draw, plan.shapes, plan.start)
    return first_network(rule, plan.tx, params, masks)


def _fold(key: jax.Array, stream: int, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, stream), step)


def _rate(plan: _Plan, step: jax.Array) -> jax.Array:
    rate = plan.learning_rate
    return jnp.float32(rate(step) if callable(rate) else 0.0 if rate is None else rate)


def _step(plan: _Plan, key: jax.Array, step: jax.Array, network: Network, grads: Any) -> Network:
    return descend(plan.rule, plan.tx, _rate(plan, step), _fold(key, WALK, step), network, grads)


def _made(plan: _Plan, step: jax.Array) -> jax.Array:
    """The steps made when the topology of an update moves: its own too, unless it takes the place of one."""
    return step + (plan.rule.update == "after_step")


def _update(
    plan: _Plan,
    key: jax.Array,
    step: jax.Array,
    network: Network,
    grads: Any,
    accuracy: jax.Array | None = None,
    fresh: Any = None,
) -> Network:
    """A topology update, and an optimiser step before it where the method takes one.

    Args:
      key, step, network, grads: as in `step`.
      accuracy: float32[], of validation examples; accset goes by it.
      fresh: parameters initialised anew; birth="fresh" takes them.
    """
    rule = plan.rule
    if rule.update == "never":
        return _step(plan, key, step, network, grads)
    if rule.count == "accuracy" and accuracy is None:
        raise UserError(f"method={plan.config.method} goes by the accuracy: give it to update()")
    if accuracy is not None and not isinstance(accuracy, jax.core.Tracer) and not 0 <= accuracy <= 1:
        raise UserError(f"accuracy={accuracy} is not a share in [0, 1]")
    if rule.birth == "fresh" and fresh is None:
        raise UserError("birth=fresh: give update() fresh parameters")
    if rule.update == "after_step":
        network = _step(plan, key, step, network, grads)
    made = _made(plan, step)
    accuracy = network.topology.accuracy if accuracy is None else jnp.float32(accuracy)
    now, counts = course(plan.config, plan.problem, made), (plan.start, plan.final)
    grads, fresh = (None if tree is None else select(tree, plan.shapes) for tree in (grads, fresh))
    key, rate = _fold(key, UPDATE, made), _rate(plan, made)
    return rewire(rule, plan.tx, rate, key, now, accuracy, *counts, network, grads, fresh)[0]


def _due(plan: _Plan, step: int) -> bool:
    return plan.rule.update != "never" and update_due(plan.config, plan.problem, int(_made(plan, step)))
