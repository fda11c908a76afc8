"""From what the flags say to what one run is: autos, times and connections. Imports no jax."""

import dataclasses
import math
import re
from fractions import Fraction
from typing import Any, NamedTuple

from sparse_jax.config import AUTO, LEARNING_RATES, SCORED, SPARSITY, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.flags import show
from sparse_jax.recipes import RECIPES, USED_BY
from sparse_jax.study.mask_file import load_masks
from sparse_jax.topology.allocation import Allocation, allocate, explicit, parse_layer_sparsity
from sparse_jax.topology.patterns import Pattern, fitting, groups_of, keeps, parse_pattern
from sparse_jax.training.problem import Problem
from sparse_jax.training.timeline import level_steps, stop_step, updates

KEPT_BY_A_LEVEL = 0.8  # of the connections, where --levels=auto (Frankle and Carbin 2019)
FILE = "file:"


class Connections(NamedTuple):
    """What the sparsity settings of a run amount to, layer by layer."""

    allocation: Allocation
    start: dict[str, int]  # at the first step
    final: dict[str, int]  # aimed at


def settings_of(point: RunConfig) -> RunConfig:
    """The settings that a point of the grid uses: every other one is None, so that equal runs compare equal.

    `auto` becomes what the method's paper says, but for the interval and the levels, which depend on the data.

    Raises:
      UserError: for settings that contradict each other.
    """
    recipe = RECIPES[point.method]
    values: dict[str, Any] = {name: value for name, value in recipe.items() if getattr(point, name) == AUTO}
    if point.learning_rate == AUTO:
        values["learning_rate"] = LEARNING_RATES[point.optimizer]
    config = dataclasses.replace(point, **values, activation=_by_layer(point))
    config = _without_unused(_without_unused(config))  # what only an unused setting uses goes, too
    if config.structure is not None:
        config = _without_unused(dataclasses.replace(config, **_level(config)))
        _check_topology(config)
    return config


def _without_unused(config: RunConfig) -> RunConfig:
    def used(users: dict) -> bool:
        values = {other: getattr(config, other) for other in users}
        return any(value == AUTO or (value is not None and users[other](value)) for other, value in values.items())

    return dataclasses.replace(config, **{name: None for name, users in USED_BY.items() if not used(users)})


def _by_layer(config: RunConfig) -> tuple[str, ...]:
    """The activation as one name if all layers have the same; one name a layer otherwise."""
    layers = len(config.hidden_sizes)
    if len(config.activation) not in (1, layers):
        raise UserError(
            f"--activation={show(config.activation)} names {len(config.activation)} layers, "
            f"but --hidden_sizes={show(config.hidden_sizes)} has {layers}"
        )
    return config.activation[:1] if len(set(config.activation)) == 1 else config.activation


def _level(config: RunConfig) -> dict[str, Any]:
    """What says how many connections there are: one of sparsity, epsilon and a map, unless a file or N:M says it."""
    nothing = dict.fromkeys(("sparsity", "epsilon", "layer_sparsity", "allocation"))
    if config.initial_topology.startswith(FILE) or parse_pattern(config.structure).kind == "n_of_m":
        return nothing
    given = [name for name in ("sparsity", "epsilon", "layer_sparsity") if getattr(config, name) not in (None, "")]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} both set the number of connections: give one of them")
    if given == ["layer_sparsity"]:
        return nothing | {"layer_sparsity": config.layer_sparsity}
    by_epsilon = given == ["epsilon"]
    auto = "erdos_renyi" if by_epsilon else "erk"
    return {
        "layer_sparsity": None,
        "allocation": auto if config.allocation == AUTO else config.allocation,
        "sparsity": config.sparsity if given else SPARSITY,
    }


def _check_topology(config: RunConfig) -> None:
    """Refuse combinations of structure, scope, allocation, first masks and method that have no meaning."""
    kind, first = parse_pattern(config.structure).kind, config.initial_topology
    structure = f"--structure={config.structure}"
    if kind != "none" and config.scope not in (None, "layer"):
        raise UserError(
            f"{structure} holds in every layer by itself: --scope={config.scope} does not keep it, use layer"
        )
    if kind != "none" and first not in ("random", "magnitude", "snip", "grasp") and not first.startswith(FILE):
        raise UserError(f"--initial_topology={first} does not keep {structure}: use random, magnitude, snip or grasp")
    if kind == "block" and config.method in ("set", "accset", "accset_level", "deepr"):
        raise UserError(
            f"--method={config.method} goes by the sign of a weight, and a block has none: use set_magnitude"
        )
    if config.ablation and kind != "fan_in":
        raise UserError(f"--ablation={config.ablation:g} goes by fan-in: use --structure=fan_in, or --ablation=0")
    varies = next(
        (f"--method={config.method}" for name in ("density_schedule", "least_share") if getattr(config, name)), None
    )
    if config.allocation == "global" and (first not in SCORED or kind != "none" or varies):
        needed = f"{varies} needs counts by layer" if varies else f"--initial_topology={first} with {structure} is none"
        raise UserError(f"--allocation=global needs a score that ranks all layers ({', '.join(SCORED)}): {needed}")
    if first.startswith(FILE) and config.density_schedule is not None:
        raise UserError(
            f"--initial_topology={first} fixes the connections: --method={config.method} prunes to a sparsity"
        )


def connections_of(config: RunConfig, problem: Problem) -> Connections:
    """The connections a run begins with and aims at: the same, unless it prunes, grows for a while, or shrinks."""
    if not problem.masked:
        return Connections(Allocation({}, None), {}, {})
    pattern, shapes = parse_pattern(config.structure), problem.masked_shapes
    allocation = _allocation(config, problem)
    final = _fitted(config, pattern, shapes, allocation.counts)
    allocation = allocation._replace(counts=final)
    if config.initial_sparsity is not None:
        return Connections(allocation, _pruned_from(config, problem, final), final)
    if config.method == "mest_soft":
        more = {name: n + math.floor(config.drop_fraction * n) for name, n in final.items()}
        start = {name: min(n, math.prod(shapes[name])) for name, n in more.items()}
        return Connections(allocation, _fitted(config, pattern, shapes, start), final)
    if config.least_share is not None:
        return Connections(allocation, final, {name: math.ceil(config.least_share * n) for name, n in final.items()})
    return Connections(allocation, final, final)


def _allocation(config: RunConfig, problem: Problem) -> Allocation:
    shapes, first = problem.masked_shapes, next(iter(problem.kernels))
    pattern = parse_pattern(config.structure)
    if config.initial_topology.startswith(FILE):
        return Allocation({name: int(mask.sum()) for name, mask in masks_of(config, problem).items()}, None)
    if pattern.kind == "n_of_m":
        return Allocation({name: groups_of(pattern, shape) * pattern.first for name, shape in shapes.items()}, None)
    if config.layer_sparsity is not None:
        return explicit(shapes, parse_layer_sparsity(config.layer_sparsity))
    if config.initial_topology == "correlation" and first not in shapes:
        raise UserError(f"--initial_topology=correlation chooses inputs of the first layer, and {first} is dense")
    if config.allocation == "uniform_dense_first" and first not in shapes:
        raise UserError(f"--allocation=uniform_dense_first: {first} is dense already by --dense_layers, use uniform")
    level = {"sparsity": config.sparsity, "epsilon": config.epsilon}
    return allocate(
        config.allocation, shapes, **level, power=1.0 if config.erk_power is None else config.erk_power, first=first
    )


def _fitted(config: RunConfig, pattern: Pattern, shapes: dict, counts: dict[str, int]) -> dict[str, int]:
    """The counts less what the pattern cannot have."""
    fitted = {}
    for name, count in counts.items():
        try:
            fitted[name] = fitting(pattern, shapes[name], count)
        except UserError as error:
            raise UserError(
                f"--structure={config.structure}: {error} of {name}; --dense_layers exempts a layer"
            ) from None
        if fitted[name] == 0:
            least = groups_of(pattern, shapes[name]) * pattern.unit
            raise UserError(f"--structure={config.structure} needs {least} connections in {name}, and it has {count}")
    return fitted


def _pruned_from(config: RunConfig, problem: Problem, final: dict[str, int]) -> dict[str, int]:
    shapes, first = problem.masked_shapes, next(iter(problem.kernels))
    name = config.allocation or "uniform"
    start = allocate(
        name,
        shapes,
        sparsity=config.initial_sparsity,
        epsilon=None,
        power=1.0 if config.erk_power is None else config.erk_power,
        first=first,
    ).counts
    start = _fitted(config, parse_pattern(config.structure), shapes, start)
    if "grow_score" not in RECIPES[config.method] and any(start[name] < final[name] for name in final):
        raise UserError(
            f"--initial_sparsity={config.initial_sparsity:g} is above the sparsity that {config.method} prunes to, "
            "and it cannot grow"
        )
    return start


def masks_of(config: RunConfig, problem: Problem) -> dict[str, Any]:
    """The masks of --initial_topology=file:PATH. Raises UserError if they are not those of the network."""
    path = config.initial_topology.removeprefix(FILE)
    masks, shapes, pattern = load_masks(path), problem.masked_shapes, parse_pattern(config.structure)
    if set(masks) != set(shapes):
        raise UserError(f"mask file {path} has masks of {_list(masks)}, the network of {_list(shapes)}")
    for name, mask in masks.items():
        if mask.shape != shapes[name]:
            raise UserError(
                f"mask file {path}: {name} is {_by(mask.shape)} there, and {_by(shapes[name])} in the network"
            )
        if not mask.any():
            raise UserError(f"mask file {path}: {name} has no connection")
        if pattern.kind != "none" and not keeps(pattern, mask):
            raise UserError(f"mask file {path}: {name} does not keep --structure={config.structure}")
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
        raise UserError(f"--interval=1 leaves {config.method} no optimiser step between updates: use 2")
    return config


def without_updates(config: RunConfig, problem: Problem, asked: str) -> str | None:
    """A notice where training leaves no room for an update; refused if the interval was asked for, or by a schedule."""
    if config.interval is None or updates(config, problem):
        return None
    stop = stop_step(config, problem)
    room = f"training has {problem.steps} steps, and updates stop at step {stop}"
    if asked != AUTO or config.density_schedule is not None:
        longest = f"--interval={stop - 1} is the longest" if stop > 1 else "train for longer"
        shown = config.interval if asked == AUTO else asked
        raise UserError(f"--interval={shown} leaves no topology update: {room}; {longest}")
    return f"{config.method} updates every {config.interval} steps, but {room}: it trains without any"


def _levelled(config: RunConfig, problem: Problem, connections: Connections) -> RunConfig:
    """The levels of a method that rewinds, and the steps to the first of them as its interval."""
    density = sum(connections.final.values()) / sum(connections.start.values())
    auto = max(1, math.ceil(math.log(density) / math.log(KEPT_BY_A_LEVEL) - 1e-9))
    levels = auto if config.levels == AUTO else config.levels
    rewind_to = in_steps(config.rewind_to, problem.steps_per_epoch, 0)
    interval = level_steps(problem, levels, rewind_to)
    if interval <= rewind_to:
        raise UserError(
            f"--levels={levels} leaves {interval} of {problem.steps} steps to a level, and "
            f"--rewind_to={rewind_to} goes "
            "back to their end: train for longer, or use fewer levels"
        )
    return dataclasses.replace(config, levels=levels, rewind_to=rewind_to, interval=interval)
