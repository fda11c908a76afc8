"""Which layers of a run are executed sparsely: those that can be, where it is asked for or pays. Imports no jax."""

import dataclasses
import math

from sparse_jax.config import RunConfig
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import multiplies_vectors
from sparse_jax.recipes import NATURES
from sparse_jax.study.mask_file import FILE
from sparse_jax.study.resolve import Connections
from sparse_jax.training.problem import Problem
from sparse_jax.values import show

MASKED, SPARSE = "masked", "sparse"
BREAK_EVEN = 0.3  # density of a layer up to which the products of its connections are faster
LEAST_WORK = 2**20  # positions × examples of a batch from which on they are
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
    names: list[str] = []
    if config.execution != MASKED:
        able = [name for name in problem.masked if multiplies_vectors(name, problem.kernels[name])]
        reason = _why_masked(config, problem, able)
        if reason and config.execution == SPARSE:
            raise UserError(f"--execution=sparse: {reason}; use --execution=masked")
        sparse = config.execution == SPARSE
        names = [] if reason else [name for name in able if sparse or _pays(config, problem, connections, name)]
    slots = {name: max(connections.start[name], connections.final[name]) for name in names}
    _check_sizes(problem, slots)
    kind = MASKED if not names else SPARSE if sparse or names == able else f"{SPARSE}:{_list(names)}"
    config, problem = dataclasses.replace(config, execution=kind), problem._replace(slots=slots)
    left = [name for name in problem.masked if name not in slots]
    if not slots or not left:
        return config, problem, None
    return config, problem, f"{config.model}: executed sparsely {_list(names, ', ')}; masked {_list(left, ', ')}"


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
    if first not in FIRST and not first.startswith(FILE):
        known = _or((*FIRST, "file:PATH"))
        return f"--initial_topology={first} looks at the whole matrix of a layer (it can be {known})"
    if config.structure == "fan_in" and NATURES[config.method].count != "constant":
        return f"--structure=fan_in with the changing counts of --method={config.method} is not there"
    if not able:
        return f"no layer of --model={config.model} with a mask multiplies one vector an example"
    return None


def _pays(config: RunConfig, problem: Problem, connections: Connections, name: str) -> bool:
    """Whether a layer was measured to be faster executed sparsely."""
    size = math.prod(problem.kernels[name])
    return connections.start[name] <= BREAK_EVEN * size and size * config.batch_size >= LEAST_WORK


def _check_sizes(problem: Problem, slots: dict[str, int]) -> None:
    for name in problem.masked:
        size = math.prod(problem.kernels[name])
        if name in slots and slots[name] > MOST:
            raise UserError(
                f"{_short(name)} has {slots[name]:,} connections, and 2^31 - 1 is the most: make it sparser"
            )
        if name not in slots and size > MOST:
            raise UserError(
                f"{_short(name)} has {size:,} positions, and 2^31 - 1 is the most under --execution=masked: use "
                "--execution=sparse, or smaller layers"
            )


def _or(values: tuple) -> str:
    return " or ".join(show(value) for value in values)


def _list(names: list[str], separator: str = "+") -> str:
    return separator.join(_short(name) for name in names)


def _short(layer: str) -> str:
    return layer.removesuffix("/kernel")
