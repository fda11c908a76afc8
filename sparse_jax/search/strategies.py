"""The strategies by name, and those that do not walk: random, genetic and exhaustive search.

What a candidate, a round and their keys are stands in `rounds.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.search.climbs import annealing, lahc
from sparse_jax.search.rounds import Best, Key, Settings, Space, Strategy, before, make_strategy, places, uniform


class Rounds(NamedTuple):
    """The state of a strategy that remembers no more than what was best."""

    step: jax.Array  # int32[], rounds done
    best: Best


class Population(NamedTuple):
    """The B best of all that was measured, the best first, of equals the oldest."""

    step: jax.Array  # int32[], rounds done
    best: Best
    members: jax.Array  # int32[B, layers]
    energies: jax.Array  # float32[B], of `members`


def _forgotten(key: Key, state: Rounds, candidates: jax.Array, energies: jax.Array) -> Rounds:
    return state


def random(space: Space, settings: Settings) -> Strategy:
    """B candidates a round, whatever was found before."""

    def propose(key: Key, state: Rounds) -> jax.Array:
        return uniform(key, space, settings.candidates)

    return make_strategy(lambda: Rounds(*before(space)), propose, _forgotten, settings.steps + 1)


def child(key: Key, space: Space, settings: Settings, population: Population) -> jax.Array:
    """int32[layers], a child of two members of a population, which may be the same one.

    Each parent is the best of `settings.tournament` members drawn with replacement, of equals the first drawn. A layer
    has the operator of either with probability 1/2; then, with probability `settings.mutation`, one drawn from all.
    """
    parents_key, cross_key, mutate_key, redraw_key = jax.random.split(key, 4)
    drawn = jax.random.randint(parents_key, (2, settings.tournament), 0, settings.candidates)
    winners = drawn[jnp.arange(2), jnp.argmin(population.energies[drawn], axis=1)]
    first, second = population.members[winners]
    crossed = jnp.where(jax.random.bernoulli(cross_key, shape=first.shape), first, second)
    mutated = jax.random.bernoulli(mutate_key, settings.mutation, first.shape)
    return jnp.where(mutated, uniform(redraw_key, space, 1)[0], crossed)


def genetic(space: Space, settings: Settings) -> Strategy:
    """A population: B random candidates, then B children a round; of old and new the best B survive.

    Equal members are not told apart, so that copies of a good one may come to fill the population.
    """
    count = settings.candidates

    def init() -> Population:
        return Population(*before(space), *places(space, settings))

    def propose(key: Key, state: Population) -> jax.Array:
        start_key, child_key = jax.random.split(key)
        keys = jax.random.split(child_key, count)
        children = jax.vmap(lambda key: child(key, space, settings, state))(keys)
        return jnp.where(state.step == 0, uniform(start_key, space, count), children)

    def accept(key: Key, state: Population, candidates: jax.Array, energies: jax.Array) -> Population:
        members = jnp.concatenate([state.members, candidates])
        energies = jnp.concatenate([state.energies, energies])
        absent = (jnp.arange(2 * count) < count) & (state.step == 0)  # last, even where no energy is finite
        survivors = jnp.lexsort((energies, absent))[:count]
        return state._replace(members=members[survivors], energies=energies[survivors])

    return make_strategy(init, propose, accept, settings.steps + 1)


def exhaustive(space: Space, settings: Settings) -> Strategy:
    """Every candidate once, B a round, the operator of the last layer changing fastest.

    The last round is filled up with the last candidate, of which rounds after it would consist.

    Raises:
      ValueError: the candidates are more than an index of 32 bits reaches.
    """
    size, count = space.operators**space.layers, settings.candidates
    if size >= 2**31:
        raise ValueError(f"{space.operators} operators in {space.layers} layers are 2^31 candidates or more")
    rounds = -(-size // count)
    values = np.array([space.operators**place for place in reversed(range(space.layers))], np.int32)

    def propose(key: Key, state: Rounds) -> jax.Array:
        first = jnp.minimum(state.step, rounds - 1) * count
        index = first + jnp.minimum(jnp.arange(count), size - 1 - first)  # in this order: no sum leaves 32 bits
        return index[:, None] // values[None] % space.operators

    return make_strategy(lambda: Rounds(*before(space)), propose, _forgotten, rounds)


STRATEGIES: dict[str, Callable[[Space, Settings], Strategy]] = {
    "lahc": lahc,
    "annealing": annealing,
    "random": random,
    "genetic": genetic,
    "exhaustive": exhaustive,
}
