"""The four mutations of a genome: pure functions of (key, genome), each applied to one network."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from sparse_jax.search.genome import Genome
from sparse_jax.search.places import Places

# what of a genome a mutation can be applied to, bool[rows, columns]
Candidates = Callable[[Places, Genome], jax.Array]
# (places, key, genome, candidates) -> genome, where there is a candidate
Change = Callable[[Places, jax.Array, Genome, jax.Array], Genome]


def pick(key: jax.Array, candidates: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The row and the column, int32[] each, of one True entry of bool[rows, columns], each as probable as the others.

    Where there is none, an entry that is False.
    """
    counts = jnp.sum(candidates, axis=1, dtype=jnp.int32)
    ends = jnp.cumsum(counts)
    rank = jax.random.randint(key, (), 0, jnp.maximum(ends[-1], 1))
    row = jnp.minimum(jnp.sum(ends <= rank, dtype=jnp.int32), counts.size - 1)
    found = jnp.cumsum(candidates[row], dtype=jnp.int32) > rank - (ends[row] - counts[row])
    return row, jnp.argmax(found).astype(jnp.int32)


def _pick_slot(key: jax.Array, candidates: jax.Array) -> jax.Array:
    return pick(key, candidates[None])[1]


# --- what can be changed ---------------------------------------------------------------------------


def connectable(places: Places, genome: Genome) -> jax.Array:
    """bool[sources, targets]: absent connections between what the network has, from a layer to a later one."""
    sources = jnp.concatenate([jnp.ones(places.inputs, bool), genome.used])
    targets = jnp.concatenate([genome.used, jnp.ones(places.outputs, bool)])
    return places.forward & ~genome.present & sources[:, None] & targets[None]


def splittable(places: Places, genome: Genome) -> jax.Array:
    """bool[sources, targets]: enabled connections with a free slot in a layer between their ends."""
    free = jnp.sum(~genome.used.reshape(places.layers, places.width), axis=1, dtype=jnp.int32)
    up_to = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(free)])  # [l], free slots of the layers 1 … l
    return genome.enabled & (up_to[places.target_layers - 1][None] > up_to[places.source_layers][:, None])


def disabled(places: Places, genome: Genome) -> jax.Array:
    """bool[sources, targets]: connections that are there but not enabled."""
    return genome.present & ~genome.enabled


def changeable(places: Places, genome: Genome) -> jax.Array:
    """bool[1, hidden]: used slots whose layer has a free one of another function."""
    free = ~genome.used.reshape(places.layers, -1, places.nodes)
    alike = jnp.sum(free, axis=2, dtype=jnp.int32)  # by layer and function
    others = jnp.sum(alike, axis=1, keepdims=True) - alike
    return (genome.used & jnp.repeat((others > 0).reshape(-1), places.nodes))[None]


# --- how it is changed -----------------------------------------------------------------------------


def _set(connections: jax.Array, source: jax.Array, target: jax.Array, value: bool) -> jax.Array:
    return lax.dynamic_update_slice(connections, jnp.full((1, 1), value), (source, target))


def add_connection(places: Places, key: jax.Array, genome: Genome, candidates: jax.Array) -> Genome:
    """Enable one of the candidates, each as probable as the others, which is new.

    The authors' code draws the source first, so that a connection counts by the free ones of its source; ours does not.
    """
    at = pick(key, candidates)
    return genome._replace(present=_set(genome.present, *at, True), enabled=_set(genome.enabled, *at, True))


def enable(places: Places, key: jax.Array, genome: Genome, candidates: jax.Array) -> Genome:
    """Enable one of the candidates again."""
    return genome._replace(enabled=_set(genome.enabled, *pick(key, candidates), True))


def add_node(places: Places, key: jax.Array, genome: Genome, candidates: jax.Array) -> Genome:
    """Split one of the candidates: it is disabled, and two connections lead through a new node instead.

    The node is one of the free slots between the two ends, each as probable as the others, hence of a random function.
    """
    split_key, slot_key = jax.random.split(key)
    source, target = pick(split_key, candidates)
    layers = jnp.asarray(places.slot_layers)
    after, before = (jnp.asarray(ends) for ends in (places.source_layers, places.target_layers))
    between = (layers > after[source]) & (layers < before[target])
    slot = _pick_slot(slot_key, between & ~genome.used)
    ends = ((source, slot), (places.inputs + slot, target))
    present, enabled = genome.present, _set(genome.enabled, source, target, False)
    for end in ends:
        present, enabled = _set(present, *end, True), _set(enabled, *end, True)
    return Genome(genome.used.at[slot].set(True), present, enabled)


def change_activation(places: Places, key: jax.Array, genome: Genome, candidates: jax.Array) -> Genome:
    """Move a node to a free slot of another function in its layer, with all its connections.

    Each such slot is as probable as the others, so that a function counts by its free slots [ours].
    """
    node_key, slot_key = jax.random.split(key)
    old = _pick_slot(node_key, candidates[0])
    layers, functions = jnp.asarray(places.slot_layers), jnp.asarray(places.slot_functions)
    new = _pick_slot(slot_key, ~genome.used & (layers == layers[old]) & (functions != functions[old]))

    def moved(connections: jax.Array) -> jax.Array:
        for axis, (a, b) in enumerate(((places.inputs + old, places.inputs + new), (old, new))):
            line = lax.dynamic_slice_in_dim(connections, a, 1, axis)
            connections = lax.dynamic_update_slice_in_dim(connections, line, b, axis)
            connections = lax.dynamic_update_slice_in_dim(connections, jnp.zeros_like(line), a, axis)
        return connections

    return Genome(genome.used.at[old].set(False).at[new].set(True), moved(genome.present), moved(genome.enabled))


MUTATIONS: dict[str, tuple[Candidates, Change]] = {
    "add_connection": (connectable, add_connection),
    "add_node": (splittable, add_node),
    "enable": (disabled, enable),
    "change_activation": (changeable, change_activation),
}


def mutate(key: jax.Array, places: Places, probabilities: jax.Array, genome: Genome) -> Genome:
    """One mutation, by the probabilities of those that can be applied [ours]; without one the genome as it is.

    Args:
      key: a PRNG key.
      places: of the genome.
      probabilities: float32[mutations], not negative, in the order of MUTATIONS.
      genome: one network.
    """
    which_key, key = jax.random.split(key)
    candidates = [of(places, genome) for of, _ in MUTATIONS.values()]
    odds = jnp.where(jnp.stack([jnp.any(some) for some in candidates]), probabilities, 0)
    which = jax.random.categorical(which_key, jnp.log(odds))
    branches = [
        lambda key, genome, some=some, change=change: change(places, key, genome, some)
        for some, (_, change) in zip(candidates, MUTATIONS.values(), strict=True)
    ]
    unchanged = lambda key, genome: genome
    which = jnp.where(jnp.any(odds > 0), which, len(branches))
    return lax.switch(which, [*branches, unchanged], key, genome)
