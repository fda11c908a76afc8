"""What a training loop that is not ours may ask for (`sparse_jax.sparsify`): settings, kernels of a pytree, masks."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sparse_jax.config import CONSTRUCTED, DRAWN, RunConfig, settings
from sparse_jax.errors import UserError, unknown
from sparse_jax.recipes import RECIPES, known_masks
from sparse_jax.study.resolve import Connections, connections_of, settings_of, timed, without_updates
from sparse_jax.study.sources import lent_to
from sparse_jax.topology.criteria import Criterion
from sparse_jax.topology.masks import Masks, name_of
from sparse_jax.topology.patterns import keeps, to_units
from sparse_jax.topology.rule import Rule
from sparse_jax.training.problem import Problem, masked_names
from sparse_jax.values import read, show

SETTINGS = {
    name: field
    for name, field in settings(RunConfig).items()
    if field.metadata["section"] in ("3 topology", "4 method")
}


def resolved(
    chosen: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    input_axes: Mapping[str, int],
    steps: int,
    steps_per_epoch: int | None,
    outputs: str,
) -> tuple[RunConfig, Problem, Connections]:
    """What keyword arguments amount to for kernels of these shapes; see `make_sparsifier`. Raises UserError."""
    asked = _config(chosen)
    config = settings_of(asked)
    viewed = {name: _as_matrix(name, shape, input_axes) for name, shape in shapes.items()}
    problem = Problem((), 0, 0, 0, 0, viewed, masked_names(config, viewed), steps_per_epoch or 0, steps)
    _check(config, problem, shapes, steps_per_epoch, outputs)
    connections = connections_of(config, problem, lent_to(config, {}))
    config = timed(config, problem, connections)
    if notice := without_updates(config, problem, asked.interval):
        raise UserError(f"{notice}; give an interval")
    for name in chosen:
        if getattr(config, name) is None:
            raise UserError(f"{name}={chosen[name]!r} has no effect: method={config.method!r} does not use it")
    return config, problem, connections


def _config(chosen: Mapping[str, Any]) -> RunConfig:
    """The configuration that keyword arguments ask for. Raises UserError for a name or a value that is none."""
    values = {}
    for name, value in chosen.items():
        if name not in SETTINGS:
            raise unknown("setting", name, SETTINGS)
        if isinstance(value, Mapping):
            value = ":".join(f"{layer}={level}" for layer, level in value.items())
        if np.ndim(value):
            raise UserError(f"{name}={value!r}: one value, not several")
        value = value.item() if hasattr(value, "item") else value
        try:
            values[name] = read(SETTINGS[name], value if isinstance(value, str) else show(value))
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None
    return RunConfig(**values)


def maskable(params: Any, layers: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the leaves of a pytree whose name a regular expression finds; UserError if there is none."""
    named = [(name_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    leaves = dict(named)
    if len(leaves) < len(named):
        twice = next(name for i, (name, _) in enumerate(named) if name in dict(named[:i]))
        raise UserError(f"two leaves are called {twice}: rename one")
    try:
        shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items() if re.search(layers, name)}
    except re.error as error:
        raise UserError(f"layers={layers!r} is not a regular expression: {error}") from error
    if not shapes:
        raise UserError(f"layers={layers!r} matches no leaf. Leaves: {', '.join(leaves)}")
    if flat := [name for name, shape in shapes.items() if len(shape) < 2]:
        raise UserError(f"layers={layers!r} matches {flat[0]}, which has no inputs and outputs: its shape is one axis")
    return shapes


def _as_matrix(name: str, shape: tuple[int, ...], input_axes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape that the allocation sees: inputs × outputs where the axes are told apart, else as it is."""
    for pattern, axes in input_axes.items():
        if re.search(pattern, name):
            if not 0 < axes < len(shape):
                raise UserError(f"input_axes: {name} has {len(shape)} axes, of which {axes} cannot be inputs")
            return math.prod(shape[:axes]), math.prod(shape[axes:])
    return shape


def with_criteria(config: RunConfig, rule: Rule, chosen: Mapping[str, Any], **own: Criterion | None) -> Rule:
    """The rule with the user's criteria by name, "drop" and "grow". Raises UserError where the method has none."""
    known = {"gradient"} if config.smoothing is None else {"gradient", "momentum"}
    for name, criterion in own.items():
        setting = f"{name}_score"
        if criterion is None:
            continue
        if setting in chosen:
            raise UserError(f"{name} and {setting}: give one of them")
        if getattr(config, setting) is None:
            raise UserError(f"{name} has no effect: method={config.method!r} has no {setting}")
        if missing := sorted(criterion.needs - known):
            raise UserError(f"{name} needs {missing[0]!r}: method={config.method!r} has {', '.join(sorted(known))}")
        rule = rule._replace(**{name: criterion})
    return rule


def _check(
    config: RunConfig, problem: Problem, shapes: Mapping[str, tuple], steps_per_epoch: int | None, outputs: str
) -> None:
    """Refuse what a loop that is not ours cannot do."""
    if "levels" in RECIPES[config.method]:
        raise UserError(f"method={config.method} trains in levels, with a clock of its own: use launch/train.py")
    first = config.initial_topology
    if config.shuffle_masks:
        raise UserError("shuffle_masks: give init() masks that are shuffled")
    if first in CONSTRUCTED:
        raise UserError(f"initial_topology={first} needs layers in series: give init() its masks")
    if first is not None and first not in (*DRAWN, "magnitude") and not known_masks(first):
        raise UserError(f"initial_topology={first} needs data: make masks by sparse_jax.training.scores for init()")
    if config.allocation == "uniform_dense_first":
        raise UserError("allocation=uniform_dense_first: a pytree has no first layer; use uniform, and dense_layers")
    if config.allocation == "global":
        raise UserError("allocation=global: give init() masks that were ranked together")
    if isinstance(config.interval, str) and "epoch" in config.interval and not steps_per_epoch:
        raise UserError(f"method={config.method} updates every {config.interval}: give steps_per_epoch, or interval")
    if (config.ablation or config.importance_pruning) and outputs not in shapes:
        raise UserError(f"outputs={outputs!r} is to name the leaf of the network's outputs: {', '.join(shapes)}")
    by_axes = config.structure not in (None, "none") or config.importance_pruning
    by_axes = by_axes or first not in (None, "random", "bernoulli", "magnitude") or "path3" in (config.grow_score or "")
    viewed = [name for name in problem.masked if problem.kernels[name] != shapes[name]]
    if viewed and by_axes:
        raise UserError(f"input_axes count for the allocation only: {viewed[0]} has no structure, first masks or paths")


def check_masks(rule: Rule, shapes: Mapping[str, tuple], start: Mapping[str, int], masks: Masks) -> None:
    """Refuse masks that are not those of the layers, or not what the method begins with; traced ones by shape only.

    Args:
      rule: the method.
      shapes: of the layers that have a mask.
      start: the connections that the settings give each at the first step.
      masks: given by the user.
    """
    if masks.keys() != shapes.keys():
        raise UserError(f"masks of {', '.join(sorted(masks))}: the layers are {', '.join(shapes)}")
    for name, mask in masks.items():
        if mask.shape != shapes[name]:
            raise UserError(f"the mask of {name} is {mask.shape}, its weights are {shapes[name]}")
        if mask.dtype != bool:
            raise UserError(f"the mask of {name} is {mask.dtype}, not bool")
        if isinstance(mask, jax.core.Tracer):  # nothing is known of it but its shape
            continue
        if not mask.any():
            raise UserError(f"the mask of {name} has no connection")
        everywhere = to_units(rule.pattern, mask).any((1, 2)).all() or rule.update == "never"
        if not (everywhere and keeps(rule.pattern, np.asarray(mask))):
            raise UserError(f"the mask of {name} does not keep the structure in every group of connections")
        count = int(mask.sum())
        if rule.count != "constant" and count != start[name]:
            raise UserError(f"the mask of {name} has {count} connections, and the method begins with {start[name]}")
