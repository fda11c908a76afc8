"""Layers made of circulants: ones(B_in, B_out) ⊗ A, without what is surplus to the kernel.

A circulant of order N connects place i to the places i + g mod N, for each step g of a set: the Cayley graph of the
integers modulo N. RadiX-Nets (`radix`) and Chung's expanders (`cayley`) are made of them. Neuron i of a layer that is
wider than N stands at place i mod N, so that the Kronecker product needs no matrix, and cropping it to any size is to
stop there: of N B neurons the last ones are left out.

A kernel is bool[..., n_in, n_out], over the channels of a convolution, whose taps are all there or none of them
(as in X-Nets, Prabhu et al. 2018, arXiv:1711.08757). Where a dense layer follows a flattened convolution, its input i
belongs to channel i mod channels, and every position has the same graph: paths are over channels, as in `paths`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.topology.graph import in_degrees, out_degrees

Kernels = Mapping[str, tuple[int, ...]]
Masks = dict[str, np.ndarray]
EXEMPT = "exempt layers from a mask, as by --dense_layers=output"
MOST = 2**31 - 1  # entries of a layer
NAMED = 4  # of what was cut


class Circulant(NamedTuple):
    """A graph from N places to N places."""

    order: int  # N
    steps: tuple[int, ...]  # distinct, in [0, N)

    def mask(self, inputs: int, outputs: int) -> np.ndarray:
        """bool[inputs, outputs]: whether j − i mod N is a step."""
        is_step = np.zeros(self.order, bool)
        is_step[list(self.steps)] = True
        rows, columns = (np.arange(size, dtype=np.int32) % self.order for size in (inputs, outputs))
        rolled = is_step[(columns[None] - np.arange(min(inputs, self.order), dtype=np.int32)[:, None]) % self.order]
        return rolled[rows]

    def connects(self, inputs: int, outputs: int) -> bool:
        """Whether every input and every output has a connection."""
        rows, columns = min(inputs, self.order), min(outputs, self.order)
        heard = (np.arange(rows)[:, None] + self.steps) % self.order < columns
        fed = (np.arange(columns)[:, None] - self.steps) % self.order < rows
        return bool(heard.any(1).all() and fed.any(1).all())


def connections_by_step(order: int, inputs: int, outputs: int, steps: np.ndarray) -> np.ndarray:
    """int64[...], how many connections each step makes between so many inputs and outputs.

        n_in = a N + t,  n_out = b N + s:   N a b + a s + b t + |{i < t : i + g mod N < s}|

    and the last of these is the overlap of [0, t) with [−g, s − g) and, once around, with [N − g, N − g + s).

    Args:
      order: N.
      inputs: n_in.
      outputs: n_out.
      steps: int[...], in [0, N).
    """
    (a, t), (b, s) = divmod(inputs, order), divmod(outputs, order)
    overlap = np.clip(s - steps, 0, t) + np.clip(t - order + steps, 0, s)
    return order * a * b + a * s + b * t + overlap


class Layers(NamedTuple):
    """What a chain of kernels is as a graph."""

    sizes: tuple[int, ...]  # neurons, or channels, of every layer, the inputs first
    copies: tuple[int, ...]  # entries of each kernel for a pair of neurons: taps, or positions that were flattened

    @property
    def entries(self) -> int:
        """Of all kernels together."""
        return sum(a * b * copies for (a, b), copies in zip(self.pairs, self.copies, strict=True))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(n_in, n_out) of each kernel."""
        return list(itertools.pairwise(self.sizes))


def layers_of(kernels: Kernels) -> Layers:
    """The sizes of kernels in series, in this order. Raises UserError for one that does not fit the one before it."""
    if not kernels:
        raise UserError("no layer has a mask")
    names, shapes = list(kernels), list(kernels.values())
    sizes, copies = [shapes[0][-2]], []
    for number, shape in enumerate(shapes):
        *_, inputs, outputs = shape
        flattened = number and len(shape) == 2 < len(shapes[number - 1]) and inputs % sizes[-1] == 0
        if inputs != sizes[-1] and not flattened:
            raise UserError(
                f"{_short(names[number])} has {inputs} inputs, and {_short(names[number - 1])} before it has "
                f"{sizes[-1]} outputs: RadiX-Nets and Cayley expanders need layers in series"
            )
        copies.append(math.prod(shape) // (sizes[-1] * outputs))
        sizes.append(outputs)
    return Layers(tuple(sizes), tuple(copies))


def widths_for(order: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The least B with N B ≥ n, of every layer."""
    return tuple(-(-size // order) for size in sizes)


def show_widths(widths: Sequence[int]) -> str:
    """As the settings write them."""
    return f"widths {':'.join(map(str, widths))}"


def surplus(order: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """float64[...], Σ_i ln(N B_i / n_i): how much wider than asked the layers are before they are cropped.

    A part of the distance by which a network is nearest (ours): 1 % more neurons in one layer counts as much as 1 %
    more connections in all.
    """
    sizes, order = np.asarray(sizes), np.asarray(order)[..., None]
    return np.log(order * -(-sizes // order) / sizes).sum(-1)


def kernel_masks(graphs: Sequence[Circulant], kernels: Kernels) -> Masks:
    """The masks of kernels in series, cropped; equal layers share one array, which cannot be written to.

    Raises:
      UserError: cropping leaves a neuron without a connection; it names the kernel.
    """
    layers, made = layers_of(kernels), {}
    masks = {}
    for (name, shape), graph, pair, copies in zip(kernels.items(), graphs, layers.pairs, layers.copies, strict=True):
        if math.prod(shape) > MOST:
            raise UserError(f"{_short(name)} is too large for a mask: {pair[0]:,} × {pair[1]:,}")
        if (graph, pair) not in made:
            made[graph, pair] = _linked(name, graph.mask(*pair))
        masks[name] = np.broadcast_to(made[graph, pair], (copies, *pair)).reshape(shape)
    return masks


def _linked(name: str, mask: np.ndarray) -> np.ndarray:
    for axis, side in ((1, "inputs"), (0, "outputs")):
        if lonely := int((~mask.any(axis)).sum()):
            raise UserError(
                f"cut to {mask.shape[0]:,} × {mask.shape[1]:,}, {_short(name)} has {lonely:,} {side} without a "
                f"connection: use a denser topology, or {EXEMPT}"
            )
    return mask


def cut(masks: Masks, built: Sequence[int]) -> str | None:
    """One line that says what was left out and which degrees vary for it; None if nothing was.

    Args:
      masks: of the kernels, in series.
      built: neurons of every layer before they were cropped.
    """
    names, sizes = [_short(name) for name in masks], layers_of({name: mask.shape for name, mask in masks.items()}).sizes
    places = [*(f"before {name}" for name in names), f"after {names[-1]}"]
    lost = [
        f"{whole - size:,} of {whole:,} neurons {place}"
        for whole, size, place in zip(built, sizes, places, strict=True) if whole > size
    ]  # fmt: skip
    if not lost:
        return None
    uneven = [
        f"{side} of {name} {degrees.min():,} to {degrees.max():,}"
        for name, mask in zip(names, masks.values(), strict=True)
        for side, degrees in (("in-degree", in_degrees(mask)), ("out-degree", out_degrees(mask)))
        if degrees.min() < degrees.max()
    ]  # fmt: skip
    lines = [f"cut: the last {_some(lost)}"]
    lines += [f"no longer constant: {_some(uneven)}"] if uneven else []
    if any(whole > size for whole, size in list(zip(built, sizes, strict=True))[1:-1]):
        lines += ["hidden neurons are missing, so that pairs need not have equally many paths"]
    return "; ".join(lines)


def nearest_line(what: str, masks: Masks, built: Sequence[int], asked: float) -> str:
    """One line that says which topology was found to be the nearest to a density, and what `cut` says of it."""
    density = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.size for mask in masks.values())
    lines = [f"nearest to density {asked:.4g}: {what}, density {density:.4g}", cut(masks, built)]
    return "; ".join(line for line in lines if line)


def _some(texts: list[str]) -> str:
    others = f" and {len(texts) - NAMED} others" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + others


def _short(name: str) -> str:
    return name.removesuffix("/kernel")
