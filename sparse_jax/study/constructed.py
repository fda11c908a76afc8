"""The masks of --initial_topology=radix and cayley: constructed for the layers of a run. Imports no jax."""

import functools
import itertools
from typing import Any, NamedTuple

from sparse_jax.config import AUTO, CONSTRUCTED, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.topology.cayley import cayley_topology
from sparse_jax.topology.radix import parse_radix, radix_topology
from sparse_jax.training.problem import Problem


class Constructed(NamedTuple):
    """The masks of layers in a row, and what the user should know of them."""

    masks: dict[str, Any]
    notice: str | None


def constructed(config: RunConfig, problem: Problem) -> Constructed:
    """The masks of a run. Raises UserError if its layers are not in a row, or the construction does not fit them."""
    first, names = f"--initial_topology={config.initial_topology}", list(problem.kernels)
    if not OUTLINES[config.model].in_series:
        raise UserError(
            f"{first} is for layers one after the other, which those of --model={config.model} are not: use expander"
        )
    places = [names.index(name) for name in names if name in problem.masked]
    if any(later != earlier + 1 for earlier, later in itertools.pairwise(places)):
        raise UserError(
            f"{first} is for layers one after the other, and --dense_layers={config.dense_layers} parts them: exempt "
            "the first or the last ones"
        )
    kernels = tuple((names[place], problem.kernels[names[place]]) for place in places)
    lists = None if config.radix in (None, AUTO) else config.radix
    return _constructed(config.initial_topology, lists, config.sparsity, kernels)


@functools.lru_cache(maxsize=8)
def _constructed(name: str, lists: str | None, sparsity: float | None, kernels: tuple) -> Constructed:
    if name == "cayley":
        return Constructed(*cayley_topology(dict(kernels), 1 - sparsity))
    if lists is None:
        return Constructed(*radix_topology(dict(kernels), None, None, 1 - sparsity))
    return Constructed(*radix_topology(dict(kernels), parse_radix(lists), None, None))


def construction(config: RunConfig, problem: Problem) -> str | None:
    """What the user should know of constructed masks."""
    return constructed(config, problem).notice if config.initial_topology in CONSTRUCTED else None
