"""In which order the connections of a trained network are removed.

The entries of all layers stand in one list, layer after layer: what is done to each is then one small program, however
many layers there are.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Shapes = Mapping[str, tuple[int, ...]]  # of the layers, in the order of the list


class Signals(NamedTuple):
    """What an order may look at, of all entries; what it does not need is None."""

    weight: jax.Array  # float32[n]
    gradient: jax.Array | None = None  # float32[n], of the mean loss over examples
    inputs: jax.Array | None = None  # float32[n], E|x| of what a connection multiplies, over examples
    exact: jax.Array | None = None  # float32[n], by how much the mean loss rises without the connection


class Order(NamedTuple):
    """An order in which connections are removed.

    Attributes:
      score: (key, signals) -> float32[n] or uint32[n], the lowest is removed first.
      candidates: weight -> bool[...], of jax or NumPy: the connections that may be removed; None: all.
      needs: the signals beside the weight.
    """

    score: Callable[[jax.Array, Signals], jax.Array]
    candidates: Callable[[jax.Array], jax.Array] | None = None
    needs: frozenset[str] = frozenset()


def magnitude(key: jax.Array, signals: Signals) -> jax.Array:
    """|w|."""
    return jnp.abs(signals.weight)


def negated_magnitude(key: jax.Array, signals: Signals) -> jax.Array:
    """−|w|."""
    return -jnp.abs(signals.weight)


def uniform(key: jax.Array, signals: Signals) -> jax.Array:
    """uint32[n], random."""
    return jax.random.bits(key, signals.weight.shape, jnp.uint32)


def saliency(key: jax.Array, signals: Signals) -> jax.Array:
    """|w ∂L/∂w|: by how much the loss L would change, to first order (Molchanov et al. 2019, arXiv:1906.10771)."""
    return jnp.abs(signals.weight * signals.gradient)


def contribution(key: jax.Array, signals: Signals) -> jax.Array:
    """|w| E|x|: what a connection adds to its neuron.

    Wanda (Sun et al. 2023, arXiv:2306.11695) has √E x² in place of E|x|, and ranks the inputs of one neuron.
    """
    return jnp.abs(signals.weight) * signals.inputs


def loss_without(key: jax.Array, signals: Signals) -> jax.Array:
    """L without the connection, less L: exact where it is the only one that goes."""
    return signals.exact


ORDERS: dict[str, Order] = {
    "smallest": Order(magnitude),
    "largest": Order(negated_magnitude),
    "random": Order(uniform),
    "positive": Order(uniform, lambda weight: weight > 0),
    "negative": Order(uniform, lambda weight: weight < 0),
    "decile": Order(magnitude),
    "gradient": Order(saliency, needs=frozenset({"gradient"})),
    "activity": Order(contribution, needs=frozenset({"inputs"})),
    "leave_one_out": Order(loss_without, needs=frozenset({"exact"})),
}


def key_of(key: jax.Array, name: str) -> jax.Array:
    """The key of an order or of an edit, the same whatever others there are."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def listed(by_layer: Mapping[str, jax.Array], shapes: Shapes) -> jax.Array:
    """[n]: the entries of all layers; arrays that broadcast to the shape of their layer do so."""
    return jnp.concatenate([jnp.broadcast_to(by_layer[name], shape).ravel() for name, shape in shapes.items()])


def split(whole: jax.Array, shapes: Shapes) -> dict[str, jax.Array]:
    """The arrays of all layers, from the list of their entries; of jax or NumPy."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()]).tolist()
    starts = [0, *ends[:-1]]
    return {name: whole[a:b].reshape(shapes[name]) for name, a, b in zip(shapes, starts, ends, strict=True)}


def ranks(scope: str, bits: np.ndarray, candidates: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """int32[n]: how many candidates are removed before each one: 0, 1, 2, ...

    On the host, where sorting one list of integers is ten times faster than what XLA compiles for a CPU.

    Args:
      scope: "layer": counted in its layer; "global": in all of them together.
      bits: uint32[n], the lowest is removed first; ties by place.
      candidates: bool[n]; what is none comes after all that are.
      sizes: entries of the layers; they sum to n, which is less than 2^31.
    """
    ends = np.cumsum(sizes).tolist() if scope == "layer" else [bits.size]
    ranked = np.empty(bits.size, np.int32)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        ranked[start:end] = _ranks(bits[start:end], candidates[start:end])
    return ranked


def _ranks(bits: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """int32[n], of one list: by one sort of uint64 that are all different, score before place."""
    (places,), (others,) = np.nonzero(candidates), np.nonzero(~candidates)
    keys = np.sort(bits[places].astype(np.uint64) << 32 | places.astype(np.uint64))
    ranked = np.empty(bits.size, np.int32)
    ranked[np.concatenate([keys & 0xFFFFFFFF, others.astype(np.uint64)]).astype(np.int64)] = np.arange(bits.size)
    return ranked


def shuffled(ranked: np.ndarray, mask: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """int32[n]: a place for every place: a permutation of the connections of each layer, and of nothing else.

    Args:
      ranked: int32[n], of the connections within their layers, at random (`ranks`).
      mask: bool[n], the connections.
      sizes: as of `ranks`.
    """
    source = np.arange(mask.size, dtype=np.int32)
    ends = np.cumsum(sizes).tolist()
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        (places,) = np.nonzero(mask[start:end])
        source[start + places] = start + places[np.argsort(ranked[start + places])]
    return source
