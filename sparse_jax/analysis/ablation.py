"""What trained networks can do without: the functions of one run that `study.ablate` compiles for many.

A trained network is given as the `HyperParams` of a run that begins with it: its masks, its parameters, its seed.
"""

import dataclasses
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sparse_jax.analysis.edits import EDITS, Given
from sparse_jax.analysis.importance import ORDERS, Signals, key_of, listed, split
from sparse_jax.config import RunConfig
from sparse_jax.data.batches import Data
from sparse_jax.search.shared_weight import vote
from sparse_jax.topology.masks import Masks, Weights, apply_masks, connections, put, select
from sparse_jax.topology.selection import ordered_bits
from sparse_jax.training.evaluation import added, batches, rows_of_batch, tally
from sparse_jax.training.parts import ABLATION, Parts, counting_active, initial_variables, make_parts, predict
from sparse_jax.training.problem import Problem
from sparse_jax.training.signals import loss_gradients, mean_inputs
from sparse_jax.training.state import HyperParams, Tally, TrainFns
from sparse_jax.training.train import make_train

COMPARED = ("leave_one_out", "smallest", "gradient", "activity")  # orders whose scores are correlated

Rows = tuple[jax.Array, jax.Array]  # int32[] each: [start, stop) of the data


class AblationParts(NamedTuple):
    """All that is static: the networks of one shape, and what is done to them."""

    run: Parts
    fns: TrainFns
    layers: tuple[str, ...]  # the kernels that lose connections, in the order of the layers
    lanes: int  # networks that one instruction evaluates

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of these kernels."""
        return {name: self.run.problem.kernels[name] for name in self.layers}


def make_ablation(config: RunConfig, problem: Problem, layers: tuple[str, ...], lanes: int) -> AblationParts:
    """What is static, for networks of a configuration in which every kernel has a mask."""
    return AblationParts(make_parts(config, problem), make_train(config, problem), layers, lanes)


class Outcome(NamedTuple):
    """What is left of a network that lost connections."""

    removed: jax.Array  # int32[], connections
    tally: Tally


def _key(hyper: HyperParams, name: str) -> jax.Array:
    return key_of(jax.random.fold_in(jax.random.key(hyper.seed), ABLATION), name)


def _map(parts: AblationParts, function: Callable[[Any], Any], over: Any) -> Any:
    """A function over the leading axis, as many at once as there are lanes."""
    return lax.map(function, over, batch_size=parts.lanes if parts.lanes > 1 else None)


def _outcome(parts: AblationParts, hyper: HyperParams, data: Data, rows: Rows, steps: jax.Array | None) -> Tally:
    """Loss and hits of the network of `hyper` with its masks, after so many steps of training; None: as it is.

    Training begins at step 0 of the run, and sees the batches that the run began with.
    """
    network = apply_masks(hyper.network["params"], hyper.masks), hyper.network["model_state"]
    if steps is not None:
        counts = {name: jnp.sum(mask, dtype=jnp.int32) for name, mask in hyper.masks.items()}
        state = parts.fns.init(hyper._replace(start=counts, counts=counts), data)
        network = parts.fns.steps(state, hyper, data, steps).evaluated
    return tally(parts.run, *network, data, *rows)


class Scored(NamedTuple):
    """The connections of a network in an order, in one list of all entries of all layers."""

    bits: jax.Array  # uint32[n], the lowest goes first
    candidates: jax.Array  # bool[n], the connections that may go


def scored(
    parts: AblationParts, names: tuple[str, ...], hyper: HyperParams, exact: tuple[jax.Array, jax.Array], data: Data,
    examples: jax.Array,
) -> dict[str, Scored]:  # fmt: skip
    """Several orders by their names.

    Args:
      parts, names: static.
      hyper: a trained network.
      exact: places and losses of `leave_one_out`; used by that order only.
      data: the training part first.
      examples: int32[], that scores are measured on.
    """
    needs = frozenset().union(*(ORDERS[name].needs for name in names))
    signals = _signals(parts, needs, hyper, exact, data, examples)
    mask, found = listed(hyper.masks, parts.shapes), {}
    for name in names:
        order = ORDERS[name]
        may = mask if order.candidates is None else mask & order.candidates(signals.weight)
        found[name] = Scored(ordered_bits(order.score(_key(hyper, name), signals)), may)
    return found


def at_random(parts: AblationParts, hyper: HyperParams, data: Data) -> Scored:
    """An order at random by which edits shuffle; it is that of no experiment."""
    mask = listed(hyper.masks, parts.shapes)
    return Scored(jax.random.bits(_key(hyper, "shuffled"), mask.shape, jnp.uint32), mask)


def curve(
    parts: AblationParts, hyper: HyperParams, ranked: jax.Array, cuts: dict[str, jax.Array], data: Data, rows: Rows,
    steps: jax.Array | None,
) -> Outcome:  # fmt: skip
    """What is left after every cut, each made in the whole network.

    Args:
      parts: static.
      hyper: a trained network.
      ranked: int32[n], of the entries of all layers (`importance.ranks`).
      cuts: layer name -> int32[cuts, 2]: the connections of ranks [a, b) are removed.
      data: the examples.
      rows: of the examples that are evaluated.
      steps: int32[] of training after each cut; None for none.

    Returns:
      with a leading axis of cuts.
    """
    by_layer = split(ranked, parts.shapes)

    def after(cut):
        gone = {name: (by_layer[name] >= cut[name][0]) & (by_layer[name] < cut[name][1]) for name in parts.layers}
        masks = hyper.masks | {name: hyper.masks[name] & ~gone[name] for name in parts.layers}
        removed = connections(hyper.masks) - connections(masks)
        return Outcome(removed, _outcome(parts, hyper._replace(masks=masks), data, rows, steps))

    return _map(parts, after, cuts)


def _weights(parts: AblationParts, hyper: HyperParams) -> Weights:
    return select(hyper.network["params"], parts.layers)


def _signals(
    parts: AblationParts, needs: Collection[str], hyper: HyperParams, exact: tuple[jax.Array, jax.Array], data: Data,
    examples: jax.Array,
) -> Signals:  # fmt: skip
    """What orders look at. Arguments as of `scored`."""
    network = hyper.network["params"], hyper.network["model_state"]
    weight, found = listed(_weights(parts, hyper), parts.shapes), {}
    if "gradient" in needs:
        found["gradient"] = listed(loss_gradients(parts.run, *network, data, examples), parts.shapes)
    if "inputs" in needs:
        found["inputs"] = listed(mean_inputs(parts.run, *network, data, examples), parts.shapes)
    if "exact" in needs:
        places, losses = exact
        found["exact"] = jnp.zeros_like(weight).at[places].set(losses, mode="drop")
    return Signals(weight, **found)


def leave_one_out(
    parts: AblationParts, hyper: HyperParams, places: jax.Array, data: Data, examples: jax.Array
) -> jax.Array:
    """float32[n]: by how much the mean loss of the first examples rises without each of some connections, one by one.

    Args:
      places: int32[n], in one list of all entries of all layers; others are no connection.
    """
    params, state = hyper.network["params"], hyper.network["model_state"]
    whole, start = listed(_weights(parts, hyper), parts.shapes), jnp.int32(0)

    def loss(without):
        kernels = split(whole.at[without].set(0, mode="drop"), parts.shapes)
        return tally(parts.run, put(params, kernels), state, data, start, examples).loss

    return _map(parts, loss, places) - loss(whole.size)


def compared(
    parts: AblationParts, hyper: HyperParams, places: jax.Array, data: Data, examples: jax.Array
) -> dict[str, jax.Array]:
    """Order name -> float32[n]: the scores of some connections, exact ones among them. Arguments as `leave_one_out`."""
    exact = places, leave_one_out(parts, hyper, places, data, examples)
    needs = frozenset().union(*(ORDERS[name].needs for name in COMPARED))
    signals = _signals(parts, needs, hyper, exact, data, examples)
    found = {name: ORDERS[name].score(_key(hyper, name), signals) for name in COMPARED}
    return {name: score.at[places].get(mode="fill", fill_value=0) for name, score in found.items()}


def edited(
    parts: AblationParts, names: tuple[str, ...], hyper: HyperParams, source: jax.Array, active_fan: jax.Array,
    data: Data, rows: Rows, steps: jax.Array | None,
) -> Tally:  # fmt: skip
    """What is left after each of several edits of all weights of the layers.

    Args:
      parts, names: static.
      source: int32[n], a permutation of the connections of each layer (`importance.shuffled`).
      active_fan: bool[], whether the initialiser of the run counted active connections only.

    Other arguments as of `curve`.

    Returns:
      with a leading axis of edits.
    """
    weights = _weights(parts, hyper)
    drawn = select(initial_variables(parts.run, _key(hyper, "reinitialised"), data, {})[0], parts.layers)
    counting = dataclasses.replace(parts.run.config, init_fan="active")
    scaled = counting_active(counting, drawn, {layer: hyper.masks[layer] for layer in parts.layers}, {})
    fresh = {layer: jnp.where(active_fan, scaled[layer], drawn[layer]) for layer in parts.layers}
    shuffled = split(listed(weights, parts.shapes)[source], parts.shapes)
    given = {one: Given(weights[one], hyper.masks[one], shuffled[one], fresh[one]) for one in parts.layers}
    changed = [{layer: EDITS[name](of_layer) for layer, of_layer in given.items()} for name in names]

    def after(kernels):
        network = hyper.network | {"params": put(hyper.network["params"], kernels)}
        return _outcome(parts, hyper._replace(network=network), data, rows, steps)

    return _map(parts, after, jax.tree.map(lambda *leaves: jnp.stack(leaves), *changed))


class SharedOutcome(NamedTuple):
    """What a topology does with one weight on all its connections."""

    tally: Tally  # with a leading axis of weights
    vote: jax.Array  # int32[], examples that the networks of all weights together classify correctly


def shared_params(params: Any, masks: Masks, weight: jax.Array) -> Any:
    """Parameters with one weight on every connection, and no bias beside a kernel."""
    biases = {f"{name.removesuffix('kernel')}bias" for name in masks}
    bare = jax.tree_util.tree_map_with_path(partial(_without, biases), params)
    return put(bare, {name: jnp.where(mask, weight, 0.0) for name, mask in masks.items()})


def _without(names: Collection[str], path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    return jnp.zeros_like(leaf) if jax.tree_util.keystr(path, simple=True, separator="/") in names else leaf


def shared(parts: AblationParts, hyper: HyperParams, data: Data, rows: Rows, weights: jax.Array) -> SharedOutcome:
    """One weight on all connections of all kernels, no biases (Gaier and Ha 2019, arXiv:1906.04358, section 3).

    Nothing that training found is left but the topology, learned activation functions and statistics of a batch
    normalisation. In the vote every weight names a class.

    Args:
      weights: float32[n]. The others are those of `curve`.
    """
    params, state = hyper.network["params"], hyper.network["model_state"]

    def logits(weight, x):
        return predict(parts.run, shared_params(params, hyper.masks, weight), state, x)

    def add(i, sums):
        x, y, counted = rows_of_batch(parts.run, data, *rows, i)
        each = _map(parts, lambda weight: logits(weight, x), weights)
        tallies = jax.vmap(added, (0, 0, None, None))(sums.tally, each, y, counted)
        voted = counted & (vote(jnp.moveaxis(each, -1, 0)) == y)
        return SharedOutcome(tallies, sums.vote + jnp.sum(voted, dtype=jnp.int32))

    nothing = Tally(jnp.zeros(weights.size), jnp.zeros(weights.size, jnp.int32))
    sums = lax.fori_loop(0, batches(data, *rows), add, SharedOutcome(nothing, jnp.int32(0)))
    return sums._replace(tally=sums.tally._replace(loss=sums.tally.loss / (rows[1] - rows[0])))
