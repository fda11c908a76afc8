"""Strategies that walk from one candidate to the next: late acceptance hill climbing and simulated annealing."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.search.rounds import Best, Key, Settings, Space, Strategy, before, make_strategy, places, uniform


class Walks(NamedTuple):
    """B walks through the space, independent of each other."""

    step: jax.Array  # int32[], rounds done
    best: Best
    current: jax.Array  # int32[B, layers], where they are
    energies: jax.Array  # float32[B], of `current`


class Climbs(NamedTuple):
    """B walks that remember energies."""

    step: jax.Array  # int32[], rounds done
    best: Best
    current: jax.Array  # int32[B, layers], where they are
    energies: jax.Array  # float32[B], of `current`
    history: jax.Array  # float32[B, history]


# --- moves -----------------------------------------------------------------------------------------


def redraw(key: Key, space: Space, candidate: jax.Array) -> jax.Array:
    """A candidate with the operator of one layer drawn anew from all, so that it may come out the same [ours]."""
    layer_key, operator_key = jax.random.split(key)
    layer = jax.random.randint(layer_key, (), 0, space.layers)
    return candidate.at[layer].set(jax.random.randint(operator_key, (), 0, space.operators))


def swap(key: Key, candidate: jax.Array) -> jax.Array:
    """A candidate with the operators of two different layers exchanged; as it is where there is only one layer."""
    layers = candidate.size
    if layers == 1:
        return candidate
    first_key, distance_key = jax.random.split(key)
    first = jax.random.randint(first_key, (), 0, layers)
    second = (first + jax.random.randint(distance_key, (), 1, layers)) % layers
    return candidate.at[first].set(candidate[second]).at[second].set(candidate[first])


def move(key: Key, space: Space, candidate: jax.Array) -> jax.Array:
    """The move of SAFS: one layer's operator is redrawn, then two layers' are swapped. At most three layers change."""
    redraw_key, swap_key = jax.random.split(key)
    return swap(swap_key, redraw(redraw_key, space, candidate))


# --- which moves are made --------------------------------------------------------------------------


def late_acceptance(
    step: jax.Array, current: jax.Array, history: jax.Array, energy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether a climb moves, and what it remembers then.

        s = 0:  accept;  H_i ← E for all i
        s > 0:  v = (s − 1) mod L;  accept  ⇔  E < H_v or E ≤ E_current;  if E < H_v then H_v ← E

    Late acceptance hill climbing as in SAFS (Loni et al. 2023, arXiv:2305.10964), where a rejected move writes nothing.
    Burke and Bykov (2017, doi:10.1016/j.ejor.2016.07.012) write, after the decision, the energy of where the climb
    then is, if it is below H_v, so that a rejected move may lower H_v too; their first version writes it whatever it
    is. With L = 1 all of them are plain hill climbing.

    Args:
      step: int32[], s, rounds done.
      current: float32[], E_current; +inf in the first round.
      history: float32[L], H.
      energy: float32[], E of the candidate, not NaN.

    Returns:
      bool[] and float32[L].
    """
    entry = (step - 1) % history.size
    accepted = (energy < history[entry]) | (energy <= current)
    return accepted, jnp.where(step == 0, energy, history.at[entry].min(energy))


def cooled(settings: Settings, step: jax.Array) -> jax.Array:
    """float32[], T of the move in round s = 1 … steps: temperature × cooling^((s − 1) / (steps − 1))."""
    return settings.temperature * settings.cooling ** ((step - 1) / max(settings.steps - 1, 1))


def annealed(key: Key, temperature: jax.Array, current: jax.Array, energy: jax.Array) -> jax.Array:
    """bool[], whether a walk moves, by Kirkpatrick et al. (1983, doi:10.1126/science.220.4598.671).

        accept  ⇔  E ≤ E_current or u < exp(−(E − E_current) / T),  u uniform in [0, 1)

    Args:
      key: a PRNG key.
      temperature: float32[], T > 0.
      current: float32[], E_current; +inf in the first round, in which everything is accepted.
      energy: float32[], E of the candidate, not NaN.
    """
    return (energy <= current) | (jax.random.uniform(key) < jnp.exp((current - energy) / temperature))


# --- strategies ------------------------------------------------------------------------------------


def _make_propose(space: Space, settings: Settings) -> Callable:
    """(key, walks) -> the random start, later a move of each walk."""

    def propose(key: Key, state: Walks | Climbs) -> jax.Array:
        start_key, move_key = jax.random.split(key)
        keys = jax.random.split(move_key, settings.candidates)
        moved = jax.vmap(lambda key, candidate: move(key, space, candidate))(keys, state.current)
        return jnp.where(state.step == 0, uniform(start_key, space, settings.candidates), moved)

    return propose


def _moved(state: Walks | Climbs, accepted: jax.Array, candidates: jax.Array, energies: jax.Array) -> Walks | Climbs:
    """Walks, of which those whose move is accepted, bool[B], are at their candidates."""
    current = jnp.where(accepted[:, None], candidates, state.current)
    return state._replace(current=current, energies=jnp.where(accepted, energies, state.energies))


def lahc(space: Space, settings: Settings) -> Strategy:
    """B climbs by late acceptance, independent of each other."""

    def init() -> Climbs:
        history = jnp.full((settings.candidates, settings.history), jnp.inf, jnp.float32)
        return Climbs(*before(space), *places(space, settings), history)

    def accept(key: Key, state: Climbs, candidates: jax.Array, energies: jax.Array) -> Climbs:
        of_each = jax.vmap(late_acceptance, (None, 0, 0, 0))
        accepted, history = of_each(state.step, state.energies, state.history, energies)
        return _moved(state, accepted, candidates, energies)._replace(history=history)

    return make_strategy(init, _make_propose(space, settings), accept, settings.steps + 1)


def annealing(space: Space, settings: Settings) -> Strategy:
    """B walks of simulated annealing with the move of lahc, independent of each other."""

    def init() -> Walks:
        return Walks(*before(space), *places(space, settings))

    def accept(key: Key, state: Walks, candidates: jax.Array, energies: jax.Array) -> Walks:
        keys = jax.random.split(key, settings.candidates)
        temperature = cooled(settings, state.step)
        accepted = jax.vmap(annealed, (0, None, 0, 0))(keys, temperature, state.energies, energies)
        return _moved(state, accepted, candidates, energies)

    return make_strategy(init, _make_propose(space, settings), accept, settings.steps + 1)
