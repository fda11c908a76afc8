"""Networks that are nothing but a few layers with drawn weights, to follow topology updates in."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.recipes import RECIPES
from sparse_jax.topology.evolution import evolve, start_topology
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.patterns import Pattern, from_units, groups_of, parse_pattern
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course

OUTPUT = "output/kernel"
SHAPES = {"a/kernel": (9, 8), "b/kernel": (8, 5), OUTPUT: (5, 4)}


class Update(NamedTuple):
    """One update: the topology before and after it, and what it saw."""

    number: int  # from 1
    before: Topology
    after: Topology
    survivors: dict[str, Any]
    moved: Any
    weights: dict[str, Any]
    gradients: dict[str, Any]


def make_rule(method: str, structure: str = "none", drop_fraction: float = 0.3, **changes: Any) -> Rule:
    """The rule of a method: its recipe with changes, and a drop fraction that stays."""
    recipe = RECIPES[method] | {"drop_schedule": "constant", "structure": parse_pattern(structure)} | changes
    rates = {"drop_fraction": drop_fraction, "importance_from": recipe.get("importance_from", 0)}
    chosen = {name: value for name, value in recipe.items() if name in Settings._fields}
    return METHODS[method](Settings(OUTPUT, {name: jnp.float32(rate) for name, rate in rates.items()}, **chosen))


def course_at(made: Any, updates: int) -> Course:
    """Where in training the update number `made` of `updates` stands."""
    progress = jnp.float32(made) / updates
    return Course(progress, progress, updates - jnp.int32(made))


def draw_weights(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/4, so that sums are exact; many are equal, some are zero."""
    return np.round(4 * rng.standard_normal(shape)).astype(np.float32) / 4


def random_mask(rng: np.random.Generator, pattern: Pattern, shape: tuple[int, ...], count: int) -> np.ndarray:
    """A mask with `count` connections in a pattern that can have as many."""
    groups = groups_of(pattern, shape)
    active = np.zeros((groups, np.prod(shape) // groups // pattern.unit), bool)
    active[:, : count // groups // pattern.unit] = True
    units = rng.permuted(active, axis=1)[:, :, None]
    return from_units(pattern, np.broadcast_to(units, (*active.shape, pattern.unit)), shape)


def follow(
    rule: Rule, networks: int, updates: int, shapes: dict, start: dict, final: dict, draw: Callable = draw_weights
) -> Iterator[Update]:
    """The updates of one network after the other, whose weights are drawn anew before every update; in NumPy."""
    rng, none = np.random.default_rng(0), {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    evolved, begin = jax.jit(partial(evolve, rule)), jax.jit(partial(start_topology, rule))
    start, final = ({name: np.int32(n) for name, n in counts.items()} for counts in (start, final))
    for network in range(networks):
        topology = begin({name: random_mask(rng, rule.pattern, shapes[name], n) for name, n in start.items()}, none)
        for made in range(1, updates + 1):
            drawn, gradients = ({name: draw(rng, name, shape) for name, shape in shapes.items()} for _ in range(2))
            weights = {name: np.where(mask, drawn[name], np.float32(0)) for name, mask in topology.masks.items()}
            if topology.momentum is not None:
                topology = topology._replace(momentum=gradients)
            key, place = jax.random.fold_in(jax.random.key(network), made), course_at(made, updates)
            new, info = evolved(key, place, np.float32(0), start, final, topology, weights, gradients)
            before, new, info = jax.tree.map(np.asarray, (topology, new, info))
            yield Update(made, before, new, info.survivors, info.moved, weights, gradients)
            topology = new
