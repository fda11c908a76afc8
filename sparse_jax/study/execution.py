"""Which layers of a run are executed sparsely: those that can be, where it is asked for or pays. Imports no jax."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
from collections.abc import Collection

from sparse_jax.config import AUTO, CONSTRUCTED, TRAINED, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import multiplies_vectors
from sparse_jax.recipes import NATURES, known_masks
from sparse_jax.sparse.compiler import find_compiler, switched_off
from sparse_jax.sparse.rounding import most_of
from sparse_jax.study.resolve import Connections
from sparse_jax.training.problem import Problem
from sparse_jax.values import show

MASKED, SPARSE = "masked", "sparse"
BREAK_EVEN = 0.3  # density of a layer up to which training is faster, updates included; products alone: about 0.5
LEAST_WORK = 2**20  # positions × examples of a batch from which on it is, compilation included
MOST = 2**31 - 1  # connections of a layer that is executed sparsely, and positions of one that has a mask
SPARSE_METHODS = (
    "static", "set", "set_magnitude", "accset", "accset_level", "rigl", "deepr", "itop_random", "itop_gradient", "mest",
    "mest_soft", "gmp", "granet", "srigl",
)  # fmt: skip
FIRST = ("random", "fan_in")
# setting -> the values that need no dense matrix
WITHOUT_MATRIX = {
    "scope": ("layer",),
    "structure": ("none", "fan_in"),
    "grow_score": ("random", "gradient"),
    "birth": ("zero", "fresh"),
    "regrow_dropped": (True,),
    "density_schedule": ("constant", "cubic", "linear", "sigmoid"),
    "ablation": (0,),
    "importance_pruning": (0,),
}


def executed(config: RunConfig, problem: Problem, connections: Connections) -> tuple[RunConfig, Problem, str | None]:
    """The configuration and the problem with what is executed how, and a notice.

    Raises:
      UserError: sparse execution was asked for what has none, or a layer is too large for the execution it gets.
    """
    able = [name for name in problem.masked if _can_be_sparse(config, problem, connections, name)]
    if reason := _why_masked(config, problem, able):
        if config.execution == SPARSE:
            raise UserError(f"--execution=sparse: {reason}; use --execution=masked")
        able = []
    pays = {
        MASKED: lambda name: False,
        SPARSE: lambda name: True,
        AUTO: lambda name: _pays(config, problem, connections, name),
    }[config.execution]
    names = [name for name in able if pays(name)]
    slots = {name: _most_connections(config, problem, connections, name) for name in names}
    _check_sizes(config, problem, slots, able)
    kind = MASKED if not names else SPARSE if names == able else f"{SPARSE}:{_list(names)}"
    config, problem = dataclasses.replace(config, execution=kind), problem._replace(slots=slots)
    left = [name for name in problem.masked if name not in slots]
    if not slots or not left:
        return config, problem, None
    return config, problem, f"{config.model}: executed sparsely {_list(names, ', ')}; masked {_list(left, ', ')}"


def _most_connections(config: RunConfig, problem: Problem, connections: Connections, name: str) -> int:
    """Those of a layer at any time: at the first step, at the last, or beyond these if the method has extra ones."""
    most = max(connections.start[name], connections.final[name])
    if NATURES[config.method].count == "extra":
        most = max(most, connections.final[name] + most_of(config.drop_fraction, connections.final[name]))
    return min(most, math.prod(problem.kernels[name]))


def _can_be_sparse(config: RunConfig, problem: Problem, connections: Connections, name: str) -> bool:
    """Whether a layer multiplies vectors, and does not have every connection for good."""
    shape = problem.kernels[name]
    full = connections.start[name] == math.prod(shape) and NATURES[config.method].count == "constant"
    return multiplies_vectors(name, shape) and not full


def _why_masked(config: RunConfig, problem: Problem, able: list[str]) -> str | None:
    """What keeps a run from sparse execution, or None."""
    if not problem.masked:
        return f"--method={config.method} has every connection"
    if config.method not in SPARSE_METHODS:
        return f"--method={config.method} looks at the whole matrix of a layer"
    for name, values in WITHOUT_MATRIX.items():
        value = getattr(config, name)
        if value is not None and value not in values:
            shown = f"--no{name}" if value is False else f"--{name}={show(value)}"
            return f"{shown} looks at the whole matrix of a layer (it can be {_or(values)})"
    first = config.initial_topology
    if first not in FIRST and not known_masks(first):
        known = _or((*FIRST, *CONSTRUCTED, "from_run:RUN", "file:PATH"))
        return f"--initial_topology={first} looks at the whole matrix of a layer (it can be {known})"
    if config.initial_weights.startswith(TRAINED):
        if not known_masks(first) or config.shuffle_masks:
            return f"--initial_weights={config.initial_weights} at connections that are drawn is a matrix of a layer"
        if config.method == "deepr":
            return f"--method=deepr goes by signs of weights that --initial_weights={TRAINED}RUN does not draw"
    if config.structure == "fan_in" and NATURES[config.method].count != "constant":
        return f"--structure=fan_in with the changing counts of --method={config.method} is not there"
    if not able:
        return f"no layer of --model={config.model} is a dense one that has a mask and lacks connections"
    return None


def _pays(config: RunConfig, problem: Problem, connections: Connections, name: str) -> bool:
    """Whether a layer was measured to be faster executed sparsely, or is too large for a mask."""
    size = math.prod(problem.kernels[name])
    large = size * config.batch_size >= LEAST_WORK
    return size > MOST or (has_kernel() and large and connections.start[name] <= BREAK_EVEN * size)


def has_kernel() -> bool:
    """Whether products of connections may be those of the C++ kernel: on a CPU, with a compiler, if it works."""
    return computes_on_cpu() and not switched_off() and find_compiler() is not None


def computes_on_cpu() -> bool:
    """Whether JAX will: if it is told so, or if no plugin for another device is installed."""
    told = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    plugins = importlib.metadata.entry_points(group="jax_plugins") or importlib.util.find_spec("libtpu")
    return told == "cpu" if told else not plugins


def _check_sizes(config: RunConfig, problem: Problem, slots: dict[str, int], may_be_sparse: Collection[str]) -> None:
    for name in problem.masked:
        size = math.prod(problem.kernels[name])
        if name in slots and slots[name] > MOST:
            remedy = "make it sparser" if config.initial_sparsity is None else "raise --initial_sparsity"
            raise UserError(f"{_short(name)} has {slots[name]:,} connections, and 2^31 - 1 is the most: {remedy}")
        if name not in slots and size > MOST:
            remedy = "use --execution=sparse, or smaller layers" if name in may_be_sparse else "use smaller layers"
            raise UserError(
                f"{_short(name)} has {size:,} positions, and 2^31 - 1 is the most of a layer with a mask: {remedy}"
            )


def _or(values: tuple) -> str:
    return " or ".join(show(value) for value in values)


def _list(names: list[str], separator: str = "+") -> str:
    return separator.join(_short(name) for name in names)


def _short(layer: str) -> str:
    return layer.removesuffix("/kernel")
