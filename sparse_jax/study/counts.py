"""How many connections every layer of a run begins with and aims at. Imports no jax."""

import math
from typing import Any

from sparse_jax.config import RunConfig
from sparse_jax.errors import UserError
from sparse_jax.models.forms import CELL_GATES
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import NATURES
from sparse_jax.topology.allocation import Allocation, allocate, explicit, parse_layer_sparsity
from sparse_jax.topology.patterns import fitting, groups_of, parse_pattern
from sparse_jax.training.problem import Problem

EQUAL_DEGREES = {"fan_in": -1, "fan_out": -2}  # first masks with as many connections for every unit of an axis
LARGEST_FLOW = 68  # of SynFlow beside shortcuts, where it is not rescaled: the exponent of 10


def counts_of(config: RunConfig, problem: Problem) -> tuple[Allocation, dict[str, int], dict[str, int]]:
    """What the settings allocate, the connections at the first step, and those aimed at.

    They are the same, unless a method prunes, grows for a while, or shrinks.

    Raises:
      UserError: for counts that the network, its structure or the method cannot have.
    """
    allocation, nature = _allocation(config, problem), NATURES[config.method]
    final = start = _fitted(config, problem, allocation.counts, "has")
    if nature.count == "schedule":
        start = _unpruned(config, problem, final)
    if nature.count == "extra":
        start = _with_extra(config, problem, final)
    start = _drawable(config, problem, start)
    if nature.count in ("constant", "accuracy") or not nature.grows:
        final = {name: min(count, start[name]) for name, count in final.items()}
    epsilon = allocation.epsilon if final == allocation.counts else None
    return Allocation(final, epsilon, sum(allocation.counts.values())), start, least_counts(config, final)


def _flow(problem: Problem) -> float:
    """A bound on log₁₀ R of SynFlow, were all kernels in series and of variance 2 / fan_in: Σ ½ log₁₀(2 fan_in)."""
    return sum(math.log10(2 * math.prod(shape[:-1])) / 2 for shape in problem.kernels.values())


def check_layers(config: RunConfig, problem: Problem) -> None:
    """Refuse a structure that does not divide a layer, and what asks of layers what this network does not have."""
    pattern, first = parse_pattern(config.structure), next(iter(problem.kernels))
    for name, shape in problem.masked_shapes.items():
        try:
            groups_of(pattern, shape)
        except UserError as error:
            raise UserError(
                f"--structure={config.structure}: {error} of {_short(name)}; use another structure or --hidden_sizes, "
                f"or exempt the layer by --dense_layers=^{_short(name)}$"
            ) from None
    if config.initial_topology == "correlation" and problem.kernels[first][:-1] != (math.prod(problem.input_shape),):
        raise UserError(
            f"--initial_topology=correlation chooses among all inputs, and {_short(first)} of --model={config.model} "
            "does not see them all at once: use random"
        )
    if config.initial_topology == "synflow" and not OUTLINES[config.model].in_series and _flow(problem) > LARGEST_FLOW:
        raise UserError(
            f"--initial_topology=synflow: the flow through so deep a --model={config.model} leaves float32; use a "
            "smaller --depth or --width, or snip or grasp"
        )
    if config.allocation == "uniform_dense_first" and config.model in CELL_GATES:
        raise UserError(
            f"--allocation=uniform_dense_first: the first layer of {config.model} is a kernel a gate; use "
            f"--allocation=uniform --dense_layers=^{config.model}_0/input_"
        )
    if first in problem.masked:
        return
    if config.initial_topology == "correlation":
        raise UserError(
            f"--initial_topology=correlation chooses inputs of {_short(first)}, which is dense by --dense_layers: "
            "use random"
        )
    if config.allocation == "uniform_dense_first":
        raise UserError(
            f"--allocation=uniform_dense_first: {_short(first)} is dense already by --dense_layers, use uniform"
        )


def _allocation(config: RunConfig, problem: Problem) -> Allocation:
    pattern, shapes = parse_pattern(config.structure), problem.masked_shapes
    if pattern.kind == "n_of_m":
        return Allocation({name: groups_of(pattern, shape) * pattern.first for name, shape in shapes.items()}, None)
    if config.layer_sparsity is not None:
        return explicit(shapes, parse_layer_sparsity(config.layer_sparsity))
    return _shared_out(config, problem, sparsity=config.sparsity, epsilon=config.epsilon)


def _shared_out(config: RunConfig, problem: Problem, **level: Any) -> Allocation:
    """As many connections as a level says, shared out by the allocation; uniformly where a run has none."""
    power = 1.0 if config.erk_power is None else config.erk_power
    first = next(iter(problem.kernels))
    return allocate(config.allocation or "uniform", problem.masked_shapes, power=power, first=first, **level)


def _fitted(config: RunConfig, problem: Problem, counts: dict[str, int], verb: str) -> dict[str, int]:
    """The counts less what the structure cannot have."""
    pattern, shapes = parse_pattern(config.structure), problem.masked_shapes
    least = {name: groups_of(pattern, shape) * pattern.unit for name, shape in shapes.items()}
    _check_least(f"--structure={config.structure}", counts, least, verb)
    return {name: fitting(pattern, shapes[name], count) for name, count in counts.items()}


def _drawable(config: RunConfig, problem: Problem, counts: dict[str, int]) -> dict[str, int]:
    """The counts less what first masks of equal degrees leave over."""
    if config.initial_topology not in EQUAL_DEGREES:
        return counts
    units = {name: shape[EQUAL_DEGREES[config.initial_topology]] for name, shape in problem.masked_shapes.items()}
    _check_least(f"--initial_topology={config.initial_topology}", counts, units, "begins with")
    return {name: count // units[name] * units[name] for name, count in counts.items()}


def _check_least(setting: str, counts: dict[str, int], least: dict[str, int], verb: str) -> None:
    for name, count in counts.items():
        if count < least[name]:
            raise UserError(
                f"{setting} needs {least[name]:,} connections in {_short(name)}, and it {verb} {count:,}: make it less "
                f"sparse, or exempt it by --dense_layers=^{_short(name)}$"
            )


def _unpruned(config: RunConfig, problem: Problem, final: dict[str, int]) -> dict[str, int]:
    """The connections at --initial_sparsity; where the layers have no allocation, at this sparsity each.

    Raises:
      UserError: where a layer would end with more than it begins with, under a method that cannot grow.
    """
    level = {"sparsity": config.initial_sparsity, "epsilon": None, "setting": "initial_sparsity"}
    start = _shared_out(config, problem, **level).counts
    if NATURES[config.method].grows:
        return _fitted(config, problem, start, "begins with")
    for name, count in final.items():
        if start[name] < count - 1:  # one less may come of rounding
            raise UserError(
                f"--initial_sparsity={config.initial_sparsity:g} is above the end of --method={config.method}, which "
                f"cannot grow: {_short(name)} would begin with {start[name]:,} connections and end with {count:,}; "
                "use a lower one"
            )
    start = {name: max(count, final[name]) for name, count in start.items()}
    return _fitted(config, problem, start, "begins with")


def _with_extra(config: RunConfig, problem: Problem, final: dict[str, int]) -> dict[str, int]:
    """What grows for an interval on top of the connections aimed at, as far as there is room."""
    more = {name: n + math.floor(config.drop_fraction * n) for name, n in final.items()}
    sizes = {name: math.prod(shape) for name, shape in problem.masked_shapes.items()}
    start = _fitted(config, problem, {name: min(n, sizes[name]) for name, n in more.items()}, "begins with")
    stuck = [name for name, count in final.items() if start[name] == count < sizes[name]]
    if config.drop_fraction and len(stuck) == len(final):
        raise UserError(
            f"--method={config.method} adds --drop_fraction={config.drop_fraction:g} of the connections, which is none "
            f"under --structure={config.structure}: use a larger fraction, or less sparsity"
        )
    return start


def least_counts(config: RunConfig, counts: dict[str, int]) -> dict[str, int]:
    """What every layer keeps at least, of a method that takes connections away."""
    if config.least_share is None:
        return counts
    return {name: math.ceil(config.least_share * n) for name, n in counts.items()}


def _short(layer: str) -> str:
    return layer.removesuffix("/kernel")
