"""What all strategies have in common of a search for which activation operator has which layer.

A candidate is int32[layers], the index of the operator of every layer. In a round the strategy proposes B of them, the
caller measures their energies, such as 1 − accuracy, of which less is better, and the strategy accepts the measured.
The key of a round is the caller's, `fold_in(key of the search, round)`; one key may serve both halves of its round,
since these fold it with different numbers. Nothing is drawn before the first round: its proposal is the random start.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Key = jax.Array
State = Any  # a NamedTuple; `step`, int32[], rounds done, and `best`, a Best, are its first two fields
PROPOSE, ACCEPT = range(2)  # what the key of a round is folded with


class Space(NamedTuple):
    """operators ** layers candidates."""

    layers: int  # at least 1
    operators: int  # at least 1


class Best(NamedTuple):
    """The candidate of the lowest energy of all that were measured, of equals the first."""

    candidate: jax.Array  # int32[layers]
    energy: jax.Array  # float32[], +inf before the first round, and as long as no energy is finite


class Settings(NamedTuple):
    """Of all strategies; each reads its own."""

    candidates: int  # B, side by side in one round; at least 1, of genetic 2
    steps: int  # moves after the first proposal, not negative; exhaustive has its own
    history: int  # of lahc, at least 1; 3 in SAFS
    temperature: float  # of annealing at the first move, in units of energy; > 0
    cooling: float  # of annealing: the temperature of the last move as a share of the first's, (0, 1]
    tournament: int  # of genetic: who takes part in one, at least 1
    mutation: float  # of genetic: the probability that the operator of a layer is redrawn, (0, 1]


class Strategy(NamedTuple):
    """A search; all its functions can be jitted, and vmapped over keys and states."""

    init: Callable[[Key], State]
    propose: Callable[[Key, State], jax.Array]  # int32[B, layers]
    # of candidates int32[B, layers] and their energies float32[B]; an energy of NaN counts as +inf
    accept: Callable[[Key, State, jax.Array, jax.Array], State]
    steps: int  # rounds of a whole search


def before(space: Space) -> tuple[jax.Array, Best]:
    """`step` and `best` before the first round."""
    return jnp.int32(0), Best(jnp.zeros(space.layers, jnp.int32), jnp.float32(jnp.inf))


def places(space: Space, settings: Settings) -> tuple[jax.Array, jax.Array]:
    """int32[B, layers] and float32[B], what the candidates of the first round and their energies take the place of."""
    count = settings.candidates
    return jnp.zeros((count, space.layers), jnp.int32), jnp.full(count, jnp.inf, jnp.float32)


def uniform(key: Key, space: Space, count: int) -> jax.Array:
    """int32[count, layers], candidates each as probable as the others."""
    return jax.random.randint(key, (count, space.layers), 0, space.operators)


def make_strategy(init: Callable, propose: Callable, accept: Callable, steps: int) -> Strategy:
    """A strategy of parts that need neither fold the keys of rounds, nor meet NaN, nor count, nor keep the best.

    Args:
      init: () -> the state before the first round.
      propose: as that of a Strategy.
      accept: as that of a Strategy, but that `step` and `best` are left as they are.
      steps: rounds of a whole search.
    """

    def accept_and_count(key: Key, state: State, candidates: jax.Array, energies: jax.Array) -> State:
        energies = jnp.where(jnp.isnan(energies), jnp.inf, energies)
        after = accept(jax.random.fold_in(key, ACCEPT), state, candidates, energies)
        return after._replace(step=state.step + 1, best=_best(state, candidates, energies))

    return Strategy(
        init=lambda key: init(),
        propose=lambda key, state: propose(jax.random.fold_in(key, PROPOSE), state),
        accept=accept_and_count,
        steps=steps,
    )


def _best(state: State, candidates: jax.Array, energies: jax.Array) -> Best:
    index = jnp.argmin(energies)
    found = Best(candidates[index], energies[index])
    better = (found.energy < state.best.energy) | (state.step == 0)  # so that it is always one that was proposed
    return jax.tree.map(lambda new, old: jnp.where(better, new, old), found, state.best)
