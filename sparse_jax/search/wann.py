"""The search for weight agnostic networks (Gaier and Ha 2019, arXiv:1906.04358), one generation as one pure function.

A generation scores every network at every shared weight, ranks them by NSGA-II, keeps the best as they are and fills
the population with mutated winners of tournaments. There is no crossover, as in the paper.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sparse_jax.config import WannConfig
from sparse_jax.data.batches import batch_indices
from sparse_jax.search.genome import Genome, connections, initial
from sparse_jax.search.mutation import MUTATIONS, mutate
from sparse_jax.search.nsga2 import ranking
from sparse_jax.search.places import Places
from sparse_jax.search.shared_weight import Scores, logits, scores
from sparse_jax.training.cohort import RUN

# what of the scores of a network is its fitness at every weight, float32[weights]
FITNESS: dict[str, Callable[[Scores], jax.Array]] = {
    "loss": lambda scores: -scores.loss,
    "accuracy": lambda scores: scores.accuracy,
}
START, ORDER, EVOLVE = range(3)  # what a key is folded with


class Examples(NamedTuple):
    """The training and the validation part, normalised."""

    x: jax.Array  # float32[inputs, examples]
    y: jax.Array  # int32[examples]
    x_validation: jax.Array
    y_validation: jax.Array


class State(NamedTuple):
    """A search between two generations."""

    genomes: Genome  # with a leading axis of networks
    generation: jax.Array  # int32[], how many were made
    champion: Genome  # the best network so far
    fitness: jax.Array  # float32[], its mean fitness on the validation part
    found: jax.Array  # int32[], the generation that had it


class Report(NamedTuple):
    """Of one generation; `best` is the network of the highest mean fitness over the weights."""

    best: jax.Array  # float32[], its fitness
    best_accuracy: jax.Array  # float32[], its mean accuracy over the weights
    mean: jax.Array  # float32[], fitness of all networks
    connections: jax.Array  # int32[], of the best
    hidden: jax.Array  # int32[], used slots of the best
    validation: jax.Array  # float32[], of the champion


def score(config: WannConfig, places: Places, genome: Genome, x: jax.Array, y: jax.Array) -> Scores:
    """The scores of one network at every weight of the configuration."""
    return scores(logits(places, genome, x, jnp.asarray(config.weights, x.dtype)), y)


def objectives(config: WannConfig, key: jax.Array, fitness: jax.Array, sizes: jax.Array) -> jax.Array:
    """float32[networks, 2], what a generation is ranked by.

    With probability `config.parsimony` the mean fitness over the weights and 1 / connections, else mean and largest.

    Args:
      config: of the search.
      key: a PRNG key.
      fitness: float32[networks, weights].
      sizes: int32[networks], connections.
    """
    small = 1 / jnp.maximum(sizes, 1).astype(fitness.dtype)
    second = jnp.where(jax.random.bernoulli(key, config.parsimony), small, jnp.max(fitness, axis=1))
    return jnp.stack([jnp.mean(fitness, axis=1), second], axis=1)


def parents(config: WannConfig, key: jax.Array, order: jax.Array) -> jax.Array:
    """int32[networks], of whom every network of the next generation is made: the elite first, of themselves.

    A tournament is between `config.tournament` networks, drawn with replacement from those that are not culled.
    """
    count = order.size
    left = count - int(config.cull * count)
    drawn = jax.random.randint(key, (count, config.tournament), 0, left)
    ranks = jnp.where(jnp.arange(count) < elite(config), jnp.arange(count), jnp.min(drawn, axis=1))
    return order[ranks]


def elite(config: WannConfig) -> int:
    """How many networks pass to the next generation as they are: of all, in the authors' code of those not culled."""
    return int(config.elite * config.population)


def start(config: WannConfig, places: Places, key: jax.Array) -> State:
    """The first generation, not yet scored; `key` is that of the search."""
    keys = jax.random.split(jax.random.fold_in(key, START), config.population)
    genomes = jax.vmap(lambda key: initial(key, places, jnp.float32(config.init_share)))(keys)
    champion = jax.tree.map(lambda leaf: leaf[0], genomes)
    return State(genomes, jnp.int32(0), champion, jnp.float32(-jnp.inf), jnp.int32(0))


def make_generation(
    config: WannConfig, places: Places, layout: str, mesh: jax.sharding.Mesh
) -> Callable[[jax.Array, State, Examples], tuple[State, Report]]:
    """(key of the search, state, examples) -> the state one generation later, and what that generation was like.

    Compiled once; it consumes the buffers of the state. The networks are shared out among the devices, which divide
    their number; on each they are mapped one after the other, or vmapped. Mapped, the numbers do not depend on how
    many devices there are.
    """
    evolve = jax.shard_map(
        _make_evolve(config, places, OVER[layout], config.population // mesh.size),
        mesh=mesh, in_specs=(jax.P(), jax.P(RUN), jax.P(), jax.P()), out_specs=(jax.P(RUN), jax.P()), check_vma=False,
    )  # fmt: skip

    def generation(key: jax.Array, state: State, examples: Examples) -> tuple[State, Report]:
        order_key, evolve_key = (jax.random.fold_in(key, purpose) for purpose in (ORDER, EVOLVE))
        x, y = _batch(config, order_key, state.generation, examples)
        genomes, scored = evolve(jax.random.fold_in(evolve_key, state.generation), state.genomes, x, y)
        state = _crowned(config, places, state, scored.best, examples)
        report = Report(
            best=jnp.mean(scored.fitness[scored.index]),
            best_accuracy=jnp.mean(scored.accuracy[scored.index]),
            mean=jnp.mean(scored.fitness),
            connections=connections(scored.best),
            hidden=jnp.sum(scored.best.used, dtype=jnp.int32),
            validation=state.fitness,
        )
        return state._replace(genomes=genomes, generation=state.generation + 1), report

    return jax.jit(generation, donate_argnums=1, out_shardings=(shardings(mesh), jax.NamedSharding(mesh, jax.P())))


def shardings(mesh: jax.sharding.Mesh) -> State:
    """Where a state lies: the networks are shared out, the rest is everywhere."""
    shared, everywhere = (jax.NamedSharding(mesh, spec) for spec in (jax.P(RUN), jax.P()))
    return State(shared, *[everywhere] * (len(State._fields) - 1))


class _Scored(NamedTuple):
    """A generation."""

    fitness: jax.Array  # float32[networks, weights]
    accuracy: jax.Array  # float32[networks, weights]
    index: jax.Array  # int32[], of the network of the highest mean fitness
    best: Genome  # that network


def _make_evolve(config: WannConfig, places: Places, over: Callable, local: int) -> Callable:
    """(key of the generation, genomes, x, y) -> the next genomes, and how these were scored, on one of the devices.

    It scores and mutates its `local` networks. The ranking, which takes no time, every device does for itself.
    """
    probabilities = jnp.asarray([getattr(config, name) for name in MUTATIONS], jnp.float32)

    def evolve(key: jax.Array, genomes: Genome, x: jax.Array, y: jax.Array) -> tuple[Genome, _Scored]:
        ours = over(lambda genome: (score(config, places, genome, x, y), connections(genome)), genomes)
        (of_all, sizes), everyone = lax.all_gather((ours, genomes), RUN, tiled=True)
        objective_key, select_key, mutate_key = jax.random.split(key, 3)
        fitness = FITNESS[config.fitness](of_all)
        order = ranking(objectives(config, objective_key, fitness, sizes))
        first = lax.axis_index(RUN) * local
        chosen = lax.dynamic_slice_in_dim(parents(config, select_key, order), first, local)

        def child(index: jax.Array, parent: jax.Array) -> Genome:
            genome = jax.tree.map(lambda leaf: leaf[parent], everyone)
            changed = mutate(jax.random.fold_in(mutate_key, index), places, probabilities, genome)
            return jax.tree.map(lambda old, new: jnp.where(index < elite(config), old, new), genome, changed)

        index = jnp.argmax(jnp.mean(fitness, axis=1)).astype(jnp.int32)
        best = jax.tree.map(lambda leaf: leaf[index], everyone)
        return over(child, first + jnp.arange(local), chosen), _Scored(fitness, of_all.accuracy, index, best)

    return evolve


def _batch(config: WannConfig, key: jax.Array, generation: jax.Array, examples: Examples) -> tuple:
    """The examples that a generation is scored on: a batch of its own, or all."""
    if not 0 < config.batch < examples.y.size:
        return examples.x, examples.y
    index = batch_indices(key, generation, examples.y.size, config.batch)
    return examples.x[:, index], examples.y[index]


def _crowned(config: WannConfig, places: Places, state: State, network: Genome, examples: Examples) -> State:
    """The best network of a generation becomes the champion if the validation part says that it is better."""
    of_network = score(config, places, network, examples.x_validation, examples.y_validation)
    fitness = jnp.mean(FITNESS[config.fitness](of_network))
    better = fitness > state.fitness
    champion = jax.tree.map(lambda new, old: jnp.where(better, new, old), network, state.champion)
    found = jnp.where(better, state.generation, state.found)
    return state._replace(champion=champion, fitness=jnp.maximum(fitness, state.fitness), found=found)


def _map(function: Callable, *args: jax.Array) -> jax.Array:
    return lax.map(lambda args: function(*args), args)


# how the networks share a device, by the names of `StudyConfig.layout`
OVER = {"map": _map, "vmap": lambda function, *args: jax.vmap(function)(*args)}
