"""A topology update of the layers that are executed sparsely: connections move between slots, and all with them."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparse_jax.sparse.evolution import Move, carried, evolve, in_use, most_grown
from sparse_jax.sparse.growth import Sensitivity
from sparse_jax.sparse.links import Links
from sparse_jax.topology.counts import target_counts
from sparse_jax.topology.criteria import Signals
from sparse_jax.topology.masks import Counts, Weights, name_of, put, select
from sparse_jax.topology.rule import Rule, Topology
from sparse_jax.topology.schedules import Course
from sparse_jax.training.network import Network

Sources = dict[str, jax.Array]  # int32[capacity] by layer, the slot of each connection before; −1 of new ones
Draw = Callable[[dict[str, Links]], Weights]


class Seen(NamedTuple):
    """What an update may look at beside the network."""

    gradients: Weights | None  # by slot; None if the rule needs none
    sensitivities: dict[str, Sensitivity]  # where connections grow by gradient; else empty
    first: Draw  # the initial weights of connections, wherever they are
    fresh: Draw  # another initialisation


def parted(topology: Topology, names: Collection[str]) -> tuple[Topology, Topology]:
    """The topology of the other layers, and that of the layers named."""

    def part(chosen: Callable[[str], bool]) -> Topology:
        fields = topology._asdict()
        dicts = {field: by_layer for field, by_layer in fields.items() if isinstance(by_layer, dict)}
        return topology._replace(
            **{
                field: {name: value for name, value in by_layer.items() if chosen(name)}
                for field, by_layer in dicts.items()
            }
        )

    return part(lambda name: name not in names), part(lambda name: name in names)


def joined(updated: Topology, others: Topology) -> Topology:
    """The topology of the layers of both; what is not by layer is that of the updated one."""
    mine, theirs = updated._asdict(), others._asdict()
    dicts = [field for field, by_layer in mine.items() if isinstance(by_layer, dict)]
    return updated._replace(**{field: mine[field] | theirs[field] for field in dicts})


def carry(tree: Any, sources: Sources) -> Any:
    """A tree like that of the parameters, with the values of slots where their connections are now; 0 of new ones."""

    def moved(path, leaf):
        name = name_of(path)
        return carried(sources[name], leaf) if name in sources else leaf

    return jax.tree_util.tree_map_with_path(moved, tree)


def _carry_slots(tx: optax.GradientTransformation, opt_state: Any, params: Any, sources: Sources) -> Any:
    """The same of every slot of an optimiser that has a parameter's shape."""

    def moved(slot, source):
        if source is True or isinstance(slot, optax.MaskedNode) or slot.shape != source.shape:
            return slot
        return carried(source, slot)

    by_leaf = jax.tree_util.tree_map_with_path(lambda path, _: sources.get(name_of(path), True), params)
    return optax.tree.map_params(tx, moved, opt_state, by_leaf, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))


def relink(
    rule: Rule,
    tx: optax.GradientTransformation,
    key: jax.Array,
    course: Course,
    accuracy: jax.Array,
    start: Counts,
    final: Counts,
    network: Network,
    links: dict[str, Links],
    seen: Seen,
    slots: Mapping[str, int],
    drop_fraction: float | None,
) -> tuple[Network, dict[str, Links], Sources, jax.Array]:
    """One topology update of the layers that have links, as `network.rewire` is one of those with masks.

    Args:
      rule, key, course, accuracy, start, final: as `topology.evolution.evolve` has them.
      tx: the optimiser.
      network: before the update; its topology is that of these layers, by slot.
      links: by layer.
      seen: what else it looks at.
      slots: static, by layer, that the run began with.
      drop_fraction: static, of the method; None if it moves no share of the connections.

    Returns:
      The network and the links after it, where the connections were before, and int32[], how many were dropped.
    """
    topology = network.topology
    pruned_to, counts = target_counts(rule, course, accuracy, *_only(links, start, final), topology)
    signals = _signals(rule, topology, select(network.params, links), seen.gradients)
    keys = dict(zip(sorted(links), jax.random.split(key, len(links)), strict=True))
    moves: dict[str, Move] = {}
    for name, of_layer in links.items():
        moves[name] = evolve(
            rule, keys[name], course, pruned_to[name], counts[name], of_layer, signals[name],
            seen.sensitivities.get(name), of_layer.shape, slots[name], most_grown(rule, slots[name], drop_fraction),
        )  # fmt: skip
    now, sources = ({name: move[i] for name, move in moves.items()} for i in range(2))
    params = carry(network.params, sources)
    if rule.birth == "fresh":
        born, carried_weights = seen.fresh(now), select(params, now)
        params = put(params, {name: _born(now[name], sources[name], carried_weights[name], born[name]) for name in now})
    topology = topology._replace(
        masks={name: in_use(of_layer) for name, of_layer in now.items()},
        accuracy=jnp.fmax(topology.accuracy, accuracy),
    )
    if topology.positive is not None:
        topology = topology._replace(positive=_signs(topology.positive, sources, seen.first(now)))
    network = Network(params, _carry_slots(tx, network.opt_state, params, sources), topology)
    return network, now, sources, sum((move.moved for move in moves.values()), jnp.int32(0))


def _only(links: Mapping[str, Links], *by_layer: Counts) -> list[Counts]:
    return [{name: counts[name] for name in links} for counts in by_layer]


def _signals(rule: Rule, topology: Topology, weights: Weights, gradients: Weights | None) -> dict[str, Signals]:
    """What the criteria see of every layer, by slot."""
    return {
        name: Signals(
            weight=weights[name],
            mask=mask,
            explored=None,
            gradient=None if gradients is None else gradients[name],
            momentum=None,
            positive=None if topology.positive is None else topology.positive[name],
            rates=rule.rates,
        )
        for name, mask in topology.masks.items()
    }


def _born(links: Links, source: jax.Array, weight: jax.Array, fresh: jax.Array) -> jax.Array:
    return jnp.where((source < 0) & in_use(links), fresh, weight)


def _signs(positive: dict[str, jax.Array], sources: Sources, first: Weights) -> dict[str, jax.Array]:
    """The signs that connections may have: those they had, and of new ones that of their initial weight."""
    return {
        name: jnp.where(source >= 0, positive[name][jnp.maximum(source, 0)], first[name] >= 0)
        for name, source in sources.items()
    }
