"""Measures of a chain of layers: which neurons and connections lie on a path from an input to an output.

All take the masks as a sequence, from the input to the output; not as a dict, because jax sorts dicts by name.
Whatever returns int32[] uses operators that NumPy and jax arrays share, so that it runs on the host at once or,
traced, within jit and vmap: shapes are static, and the work is one pass over the masks.

A convolution is a graph over channels: a pair is linked if any tap is. Where a dense layer follows a flattened
convolution, its input i belongs to channel i mod channels. Neurons are hidden units or channels.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

Array = TypeVar("Array")  # np.ndarray or jax.Array, of booleans unless it says otherwise
DIGIT_BITS = 26  # a sum of 2^26 digits is still exact in float64


def layer_order(names: Iterable[str]) -> list[str]:
    """The names in natural order (dense_2 before dense_10), with the layer `output` last."""
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple:
    parts = re.split(r"(\d+)", name)
    parts[1::2] = map(int, parts[1::2])
    return name.split("/")[0] == "output", parts


def with_dense_layers(
    shapes: Mapping[str, tuple[int, ...]], masks: Mapping[str, Array], ones: Callable[..., Array]
) -> dict[str, Array]:
    """The masks of all layers in the order of `shapes`: a layer without a mask has every connection.

    Args:
      shapes: of every kernel, from the input to the output.
      masks: of some of them or of none.
      ones: np.ones, or jnp.ones where the masks are traced: it makes a layer (shape, dtype).
    """
    return {name: masks[name] if name in masks else ones(shape, bool) for name, shape in shapes.items()}


def chain(masks: Sequence[Array]) -> list[Array]:
    """The layers as bool[taps, n_in, n_out], with the n_out of each equal to the n_in of the next.

    Raises:
      ValueError: there is no layer, or one does not fit the layer before it.
    """
    if not masks:
        raise ValueError("a chain has at least one layer")
    kernels = []
    for number, mask in enumerate(masks):
        inputs, outputs = mask.shape[-2:]
        if number and inputs != (before := kernels[-1].shape[-1]):
            flattened = mask.ndim == 2 < masks[number - 1].ndim
            if not flattened or inputs % before:
                raise ValueError(f"layer {number} has {inputs} inputs, the layer before it has {before} outputs")
            inputs = before
        kernels.append(mask.reshape(-1, inputs, outputs))
    return kernels


def _graphs(masks: Sequence[Array]) -> list[Array]:
    """bool[n_in, n_out] of each layer: which neurons are linked."""
    return [kernel.any(axis=0) for kernel in chain(masks)]


def hidden_links(masks: Sequence[Array]) -> list[tuple[Array, Array]]:
    """(fed, heard) of each hidden layer, bool[n]: whether a neuron has an incoming and an outgoing link."""
    return [(before.any(axis=0), after.any(axis=1)) for before, after in itertools.pairwise(_graphs(masks))]


def dead_neurons(masks: Sequence[Array]) -> Array:
    """int32[], the hidden neurons without an incoming or without an outgoing link."""
    return _total(~(fed & heard) for fed, heard in hidden_links(masks))


def _reach(masks: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """(forward, backward): whether a neuron is reached from any input, and reaches any output.

        forward_0 = 1,  forward_{l+1} = A_lᵀ forward_l;   backward_L = 1,  backward_l = A_l backward_{l+1}

    in Boolean arithmetic; each is a list of bool[n], one of every layer of neurons, inputs and outputs included.
    """
    graphs = _graphs(masks)
    forward = [np.ones(graphs[0].shape[0], bool)]
    for graph in graphs:
        forward.append((graph & forward[-1][:, None]).any(axis=0))
    backward = [np.ones(graphs[-1].shape[1], bool)]
    for graph in reversed(graphs):
        backward.insert(0, (graph & backward[0][None, :]).any(axis=1))
    return forward, backward


def disconnected_neurons(masks: Sequence[Array]) -> Array:
    """int32[], the hidden neurons on no path from an input to an output; the dead ones are among them."""
    forward, backward = _reach(masks)
    return _total(~(there & back) for there, back in zip(forward[1:-1], backward[1:-1], strict=True))


def effective_masks(masks: Sequence[Array]) -> list[Array]:
    """The masks without the connections on no path from an input to an output; shapes as given.

        E_ij = A_ij forward_i backward_j

    (Vysogorets and Kempe 2023, Connectivity Matters, JMLR 24(99), arXiv:2107.02306), here by Boolean
    reachability, so without rounding at any depth.
    """
    forward, backward = _reach(masks)
    return [
        (kernel & there[None, :, None] & back[None, None, :]).reshape(mask.shape)
        for mask, kernel, there, back in zip(masks, chain(masks), forward[:-1], backward[1:], strict=True)
    ]


def effective_connections(masks: Sequence[Array]) -> Array:
    """int32[], the connections on a path from an input to an output (see `effective_masks`)."""
    return _total(effective_masks(masks))


def effective_sparsity(masks: Sequence[Array]) -> float:
    """The share of all entries on no path from an input to an output, in [0, 1]; at least the sparsity."""
    return 1 - int(effective_connections(masks)) / sum(mask.size for mask in masks)


def empty_layers(masks: Sequence[Array]) -> list[int]:
    """The layers without a connection, by their place in the chain: layer collapse.

    Tanaka et al. 2020 (arXiv:2006.05467). A path passes through every layer, so layers lose their last effective
    connection all at the same time: then `effective_connections` is 0, which it can be without an empty layer.
    """
    return [number for number, mask in enumerate(masks) if not mask.any()]


def collapsed_layers(masks: Sequence[Array]) -> Array:
    """int32[], how many layers have no connection (see `empty_layers`)."""
    return _total(~mask.any() for mask in masks)


class Connectivity(NamedTuple):
    """The measures of a chain that cost no more than a pass over its masks; int32[] each."""

    dead_neurons: Array
    effective_connections: Array
    collapsed_layers: Array


def connectivity(masks: Sequence[Array]) -> Connectivity:
    """How much of a chain is cut off."""
    return Connectivity(dead_neurons(masks), effective_connections(masks), collapsed_layers(masks))


def _total(masks: Iterable[Array]) -> Array:
    return sum((mask.sum(dtype=np.int32) for mask in masks), np.int32(0))


# --- how many paths --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paths:
    """Numbers of paths, exact.

    Attributes:
      total: from any input to any output.
      least: between the input and the output with the fewest.
      most: between the input and the output with the most.
    """

    total: int
    least: int
    most: int


def count_paths(masks: Sequence[np.ndarray]) -> Paths:
    """The paths from inputs to outputs: the entries of A_1 A_2 ... A_L, in integers of any size.

    Numbers are carried as digits of base 2^26 in float64, so that a product of matrices does the work and stays
    exact for layers of up to 2^26 neurons. Outputs to which every neuron has as many paths as to another are carried
    as one: in a RadiX-Net they are all one after its last whole list, so that hundreds of layers take seconds. Over
    channels, like every graph here: taps make no paths of their own.
    """
    *graphs, last = _graphs(masks)
    digits, times = _distinct(np.asarray(last, float)[None], np.ones(last.shape[1], int))
    for graph in reversed(graphs):
        product = np.tensordot(digits, np.asarray(graph, float), (1, 1))  # one product of matrices, for all digits
        digits, times = _distinct(_carry(product.swapaxes(1, 2)), times)
    pairs = sum(digit.astype(np.int64).astype(object) << (DIGIT_BITS * i) for i, digit in enumerate(digits))
    return Paths(int((pairs @ times.astype(object)).sum()), int(pairs.min()), int(pairs.max()))


def _distinct(digits: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct columns of [digits, rows, columns], and how many there are of each, `times` of those given."""
    places: dict[bytes, int] = {}
    of_column = [places.setdefault(digits[:, :, i].tobytes(), len(places)) for i in range(digits.shape[2])]
    first = np.unique(of_column, return_index=True)[1]
    return digits[:, :, first], np.bincount(of_column, times).astype(int)


def _carry(digits: np.ndarray) -> np.ndarray:
    """float64[digits, ...] below the base, of the same value, with as many digits as it takes."""
    base = float(2**DIGIT_BITS)
    while (digits >= base).any():
        over, below = np.divmod(digits, base)
        zero = np.zeros_like(digits[:1])
        digits = np.concatenate([below, zero]) + np.concatenate([zero, over])
        digits = digits if digits[-1].any() else digits[:-1]
    return digits
