"""From what the flags say to what one run is: autos, times and connections. Imports no jax."""

import dataclasses
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.config import AUTO, CONSTRUCTED, FROM_RUN, KEPT_BY_A_LEVEL, LEARNING_RATES, SPARSITY, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import MODEL_RECIPES, NATURES, RECIPES, USED_BY, known_masks
from sparse_jax.study.conflicts import refuse_conflicts
from sparse_jax.study.constructed import constructed
from sparse_jax.study.counts import check_layers, counts_of, least_counts
from sparse_jax.study.mask_file import as_mask, digest, load_topology
from sparse_jax.study.sources import Lent
from sparse_jax.topology.allocation import Allocation
from sparse_jax.topology.patterns import Pattern, keeps, parse_pattern, to_units
from sparse_jax.training.problem import Problem
from sparse_jax.training.timeline import level_steps, stop_step, updates
from sparse_jax.values import show

NEARLY = 0.99  # of the connections asked for: fewer are worth a notice
# What says how many connections a run has, instead of a sparsity or an epsilon and an allocation: whether a value does.
COUNTED_BY: dict[str, Callable[[str], bool]] = {
    "initial_topology": known_masks,
    "structure": lambda value: ":" in value,  # N:M
    "layer_sparsity": bool,
}


class Connections(NamedTuple):
    """What the sparsity settings of a run amount to, layer by layer."""

    allocation: Allocation
    start: dict[str, int]  # at the first step
    final: dict[str, int]  # aimed at
    masks: str | None = None  # digest of the first ones, if they are known before anything is computed


def settings_of(point: RunConfig) -> RunConfig:
    """The settings that a point of the grid uses: every other one is None, so that equal runs compare equal.

    `auto` becomes what the method's paper says, but for the interval and the levels, which depend on the data.

    Raises:
      UserError: for settings that contradict each other.
    """
    recipe = RECIPES[point.method] | MODEL_RECIPES[point.model]
    values: dict[str, Any] = {name: value for name, value in recipe.items() if getattr(point, name) == AUTO}
    if point.learning_rate == AUTO:
        values["learning_rate"] = LEARNING_RATES[point.optimizer]
    config = _by_layer(dataclasses.replace(point, **values))
    config = _without_unused(_without_unused(config))  # what only an unused setting uses goes, too
    if config.initial_weights == AUTO:
        lent = (config.initial_topology or "").startswith(FROM_RUN)
        config = dataclasses.replace(config, initial_weights="fresh" if lent else "seed")
    if config.structure is not None:
        config = _without_unused(dataclasses.replace(config, **_level(config)))
        refuse_conflicts(config)
    return config


def _without_unused(config: RunConfig) -> RunConfig:
    def used(users: dict) -> bool:
        values = {other: getattr(config, other) for other in users}
        return any(value == AUTO or (value is not None and users[other](value)) for other, value in values.items())

    return dataclasses.replace(config, **{name: None for name, users in USED_BY.items() if not used(users)})


def _by_layer(config: RunConfig) -> RunConfig:
    """With the activation as one name if all layers have the same, and one name a layer otherwise."""
    layers, names = OUTLINES[config.model].activations(config), config.activation
    if len(names) not in (1, layers):
        sizes = (
            f" with --hidden_sizes={show(config.hidden_sizes)}" if "hidden_sizes" in MODEL_RECIPES[config.model] else ""
        )
        raise UserError(
            f"--activation={show(names)} names {len(names)} layers, but --model={config.model}{sizes} has {layers}"
        )
    return dataclasses.replace(config, activation=names[:1] if len(set(names)) == 1 else names)


def _level(config: RunConfig) -> dict[str, Any]:
    """What says how many connections there are: one of sparsity, epsilon and a map, unless a file or N:M says it."""
    nothing = dict.fromkeys(("sparsity", "epsilon", "layer_sparsity", "allocation"))
    by_other = [name for name, counts in COUNTED_BY.items() if counts(getattr(config, name))]
    if by_other and by_other != ["layer_sparsity"]:
        return nothing | _label(config)
    given = [name for name in ("sparsity", "epsilon", "layer_sparsity") if getattr(config, name) not in (None, "")]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} both set the number of connections: give one of them")
    if by_other:
        return nothing | {"layer_sparsity": config.layer_sparsity}
    auto = "erdos_renyi" if given == ["epsilon"] else "erk"
    return {
        "layer_sparsity": None,
        "allocation": auto if config.allocation == AUTO else config.allocation,
        "sparsity": config.sparsity if given else SPARSITY,
    }


def _label(config: RunConfig) -> dict[str, Any]:
    """The level that known masks are built for, or that tells the runs apart from which they come."""
    first = config.initial_topology
    if first not in CONSTRUCTED:
        patterns = f"{first} {config.initial_weights}"
        return {name: getattr(config, name) for name in ("sparsity", "epsilon") if f"{{{name}}}" in patterns}
    if config.radix not in (None, AUTO):
        return {}
    return {"sparsity": SPARSITY if config.sparsity is None else config.sparsity}


def connections_of(config: RunConfig, problem: Problem, lent: Lent) -> Connections:
    """The connections a run begins with and aims at: the same, unless it prunes, grows for a while, or shrinks.

    Raises:
      UserError: for counts that the network or its structure cannot have, or a mask file that does not fit them.
    """
    if not problem.masked:
        return Connections(Allocation({}, None), {}, {})
    check_layers(config, problem)
    if known_masks(config.initial_topology):
        masks = masks_of(config, problem, lent)
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        return Connections(Allocation(counts, None), counts, least_counts(config, counts), digest(masks))
    return Connections(*counts_of(config, problem))


def masks_of(config: RunConfig, problem: Problem, lent: Lent) -> dict[str, Any]:
    """The first masks that are known: constructed, or of a file. Raises UserError if the network cannot have them."""
    if config.initial_topology in CONSTRUCTED:
        return constructed(config, problem).masks
    path = lent.masks.path
    shapes, pattern = problem.masked_shapes, parse_pattern(config.structure)
    masks = load_topology(Path(path).expanduser())
    if set(masks) != set(shapes):
        raise UserError(
            f"mask file {path} has masks of {_list(masks)}, and the network has the kernels {_list(shapes)}: name them "
            "so; --dense_layers exempts layers from a mask"
        )
    for name, mask in masks.items():
        if mask.shape != shapes[name]:
            raise UserError(
                f"mask file {path}: {name} is {_by(mask.shape)} there, and {_by(shapes[name])} in the network; choose "
                "the --dataset, --model and --hidden_sizes that it was made for"
            )
        if not mask.any():
            raise UserError(f"mask file {path}: {name} has no connection; give it one, or use another file")
        if pattern.kind != "none":
            _check_kept(config, path, name, pattern, as_mask(mask))
    return masks


def _check_kept(config: RunConfig, path: str, name: str, pattern: Pattern, mask: Any) -> None:
    structure = f"--structure={config.structure}"
    if not keeps(pattern, mask):
        raise UserError(f"mask file {path}: {name} does not keep {structure}; use another file, or --structure=none")
    moves = config.interval is not None or config.levels is not None
    if moves and not to_units(pattern, mask).any((1, 2)).all():
        raise UserError(
            f"mask file {path}: {name} has neurons without a connection, and --method={config.method} gives each as "
            f"many under {structure}; use --method=static, or --structure=none"
        )


def unchanged_masks(config: RunConfig, problem: Problem, lent: Lent, before: str) -> dict[str, Any]:
    """The known masks again. Raises UserError if their digest is not the one `before`."""
    masks = masks_of(config, problem, lent)
    if lent.masks and digest(masks) != before:
        raise UserError(f"mask file {lent.masks.path} has changed since this study was begun: restore it")
    return masks


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def in_steps(interval: str, steps_per_epoch: int, least: int) -> int:
    """A time as the flags write it, in steps."""
    epochs = re.fullmatch(r"(.*?)epochs?", interval)
    return max(least, round(Fraction(epochs[1] or 1) * steps_per_epoch)) if epochs else int(interval)


def timed(config: RunConfig, problem: Problem, connections: Connections) -> RunConfig:
    """The interval and the levels in steps."""
    if config.levels is not None:
        return _levelled(config, problem, connections)
    if config.interval is None:
        return config
    config = dataclasses.replace(config, interval=in_steps(config.interval, problem.steps_per_epoch, 1))
    if config.interval == 1 and config.update_step == "skip":
        raise UserError(
            f"--interval=1 leaves {config.method} no optimiser step between updates: use --interval=2, or "
            "--update_step=take"
        )
    return config


def without_updates(config: RunConfig, problem: Problem, asked: str) -> str | None:
    """A notice where training leaves no room for an update; refused if the interval was asked for, or by a schedule."""
    if config.interval is None or updates(config, problem):
        return None
    stop = stop_step(config, problem)
    room = f"training has {problem.steps} steps, and updates stop at step {stop}"
    if asked != AUTO or NATURES[config.method].count in ("schedule", "extra"):
        longest = f"--interval={stop - 1} is the longest" if stop > 1 else "train for longer"
        shown = config.interval if asked == AUTO else asked
        raise UserError(f"--interval={shown} leaves no topology update: {room}; {longest}")
    return f"{config.method} updates every {config.interval} steps, but {room}: it trains without any"


def left_out(config: RunConfig, connections: Connections) -> str | None:
    """A notice where structures or equal degrees leave a network sparser than asked."""
    found, asked = sum(connections.allocation.counts.values()), connections.allocation.asked
    if asked is None or found >= NEARLY * asked:
        return None
    return (
        f"{config.method}: {found:,} connections where {asked:,} were asked for: --structure={config.structure} with "
        f"--initial_topology={config.initial_topology} has as many in every group, what does not divide is left out"
    )


def _levelled(config: RunConfig, problem: Problem, connections: Connections) -> RunConfig:
    """The levels of a method that rewinds, and the steps to the first of them as its interval."""
    density = (sum(connections.final.values()) + 0.5 * len(connections.final)) / sum(connections.start.values())
    auto = max(1, math.ceil(math.log(min(density, 1)) / math.log(KEPT_BY_A_LEVEL)))  # counts are rounded in every layer
    levels = auto if config.levels == AUTO else config.levels
    rewind_to = in_steps(config.rewind_to, problem.steps_per_epoch, 0)
    most = problem.steps - rewind_to - 1  # with a step to make again after each
    if most < 1:
        raise UserError(
            f"--rewind_to={config.rewind_to} is step {rewind_to} of {problem.steps}: {config.method} has none to make "
            "again, go back further"
        )
    if levels > most:
        raise UserError(
            f"--levels={levels} with --rewind_to={config.rewind_to} leaves no step of {problem.steps} between two "
            f"prunings: {most} is the most, or train for longer"
        )
    interval = level_steps(problem, levels, rewind_to)
    return dataclasses.replace(config, levels=levels, rewind_to=rewind_to, interval=interval)
