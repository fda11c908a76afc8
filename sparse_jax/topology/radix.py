"""RadiX-Nets: sparse networks in which every input and every output are joined by equally many paths.

Robinett and Kepner 2019 (arXiv:1905.00416), after the mixed-radix nets of Alford 2018 (arXiv:1810.00299). Plain NumPy
and Python, so that a net that is none is refused before jax is imported.
"""

import itertools
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.topology.circulant import (
    EXEMPT,
    Circulant,
    Kernels,
    Layers,
    Masks,
    cut,
    kernel_masks,
    layers_of,
    nearest_line,
    show_widths,
    widths_for,
)
from sparse_jax.topology.radix_search import nearest_list

MOST_NEURONS = 2**22  # of a layer

Lists = tuple[tuple[int, ...], ...]


class RadixNet(NamedTuple):
    """A net that `radix_net` has checked.

        W_i = ones(B_{i−1}, B_i) ⊗ A_i,   A_i = Σ_{j < r_i} P^(j v_i)

    with P the cyclic shift of N' places and v_i the product of the radices before r_i in its own list.

    Attributes:
      lists: N^1 … N^M, the radices; each but the last has the product N', which that of the last divides.
      widths: B_0 … B_L, one more than there are radices.
    """

    lists: Lists
    widths: tuple[int, ...]

    @property
    def order(self) -> int:
        """N'."""
        return math.prod(self.lists[0])

    @property
    def radices(self) -> tuple[int, ...]:
        """r_1 … r_L."""
        return tuple(itertools.chain(*self.lists))

    @property
    def graphs(self) -> tuple[Circulant, ...]:
        """A_1 … A_L."""
        return tuple(
            Circulant(self.order, tuple(range(0, radix * place, place)))
            for radices in self.lists
            for radix, place in zip(radices, _places(radices), strict=True)
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """N' B_i, the neurons of every layer."""
        return tuple(self.order * width for width in self.widths)

    @property
    def out_degrees(self) -> tuple[int, ...]:
        """r_i B_i, of every neuron that layer i reads."""
        return tuple(radix * width for radix, width in zip(self.radices, self.widths[1:], strict=True))

    @property
    def in_degrees(self) -> tuple[int, ...]:
        """r_i B_{i−1}, of every neuron that layer i feeds."""
        return tuple(radix * width for radix, width in zip(self.radices, self.widths, strict=False))

    @property
    def connections(self) -> tuple[int, ...]:
        """N' r_i B_{i−1} B_i."""
        return tuple(size * degree for size, degree in zip(self.sizes, self.out_degrees, strict=False))

    @property
    def density(self) -> Fraction:
        """Σ r_i B_{i−1} B_i / (N' Σ B_{i−1} B_i)."""
        return Fraction(sum(self.connections), sum(a * b for a, b in itertools.pairwise(self.sizes)))

    @property
    def paths(self) -> int:
        """∏_{i ≥ 2} ∏ N^i · ∏_{0 < i < L} B_i, from each input to each output."""
        return math.prod(itertools.chain(*self.lists[1:])) * math.prod(self.widths[1:-1])

    def masks(self) -> list[np.ndarray]:
        """bool[N' B_{i−1}, N' B_i] of every layer."""
        return [graph.mask(*pair) for graph, pair in zip(self.graphs, itertools.pairwise(self.sizes), strict=True)]

    def __str__(self) -> str:
        return f"{show_lists(self.lists)} with {show_widths(self.widths)}"


def _places(radices: Sequence[int]) -> list[int]:
    """v: of each radix the product of those before it."""
    return list(itertools.accumulate(radices[:-1], int.__mul__, initial=1))


def _check_lists(lists: Sequence[Sequence[int]]) -> None:
    shown = show_lists(lists)
    if not lists or not all(lists):
        raise UserError(f"radices {shown!r}: a list is empty; write lists as 10:10, with / between two")
    if (least := min(map(min, lists))) < 2:
        raise UserError(f"radices {shown}: {least} is no radix, the least is 2")
    first, *others = map(math.prod, lists)
    for product in others[:-1]:
        if product != first:
            raise UserError(
                f"radices {shown}: all lists but the last must have the same product, and the first has {first}, "
                f"another {product}"
            )
    for product in others[-1:]:
        if first % product:
            raise UserError(
                f"radices {shown}: the product of the last list must divide that of the first, and {product} does not "
                f"divide {first}"
            )


def radix_net(lists: Sequence[Sequence[int]], widths: Sequence[int]) -> RadixNet:
    """The net of these radices and widths. Raises UserError, which names the condition that they violate."""
    _check_lists(lists)
    net, shown = RadixNet(tuple(map(tuple, lists)), tuple(widths)), show_lists(lists)
    if len(net.widths) != len(net.radices) + 1:
        raise UserError(
            f"radices {shown}: {len(net.radices)} radices need {len(net.radices) + 1} widths, not {len(net.widths)}: "
            "one before and one after each"
        )
    if min(net.widths) < 1:
        raise UserError(f"{show_widths(net.widths)}: {min(net.widths)} is no width, the least is 1")
    if max(net.sizes) > MOST_NEURONS:
        raise UserError(f"radices {shown}: a layer of {max(net.sizes):,} neurons; {MOST_NEURONS:,} are the most")
    return net


def graph_challenge(repeats: int, width: int = 1) -> RadixNet:
    """[[32, 32]] · repeats, every layer of 1024 · width neurons: the family of the Sparse DNN Graph Challenge."""
    return radix_net([(32, 32)] * repeats, [width] * (2 * repeats + 1))


def show_lists(lists: Sequence[Sequence[int]]) -> str:
    """As `parse_radix` reads them."""
    return "/".join(":".join(map(str, radices)) for radices in lists)


def parse_radix(text: str) -> Lists:
    """Lists of radices, from 10:10 or 2:2:2/2:2:2. Raises UserError for what is none."""
    return tuple(_integers(part, f"radices {text!r}", "10:10, with / between two lists") for part in text.split("/"))


def parse_widths(text: str) -> tuple[int, ...]:
    """Widths, from 8:3:1. Raises UserError for what is none."""
    return _integers(text, f"widths {text!r}", "8:3:1")


def _integers(text: str, what: str, example: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\s*-?\d{1,9}\s*(:\s*-?\d{1,9}\s*)*", text, re.ASCII):
        raise UserError(f"{what} are no list of integers: write {example}")
    return tuple(map(int, text.split(":")))


def nearest(layers: Layers, density: float) -> RadixNet:
    """The RadiX-Net that, cropped to the layers, is nearest to a density, by the distance of `radix_search`.

    Args:
      layers: see `circulant.layers_of`.
      density: in (0, 1].

    Raises:
      UserError: that is the dense one, and the density is below 1.
    """
    radices = nearest_list(layers, density)
    if len(radices) == 1 and density < 1:
        sizes = ", ".join(map(str, layers.sizes))
        raise UserError(
            f"the RadiX-Net nearest to density {density:.4g} for layers of {sizes} is dense: sparse ones have two "
            f"layers or more, none of few neurons, and at most half of the connections; ask for less, or {EXEMPT}"
        )
    repeats, rest = divmod(len(layers.copies), len(radices))
    lists = [radices] * repeats + [radices[:rest]] * (rest > 0)
    return radix_net(lists, widths_for(math.prod(radices), layers.sizes))


# --- masks of a network ----------------------------------------------------------------------------


def radix_masks(net: RadixNet, kernels: Kernels) -> Masks:
    """The masks of kernels in series, cropped from the net. Raises UserError where the net is not one of theirs."""
    sizes = layers_of(kernels).sizes
    _check_count(net.lists, kernels)
    for size, built in zip(sizes, net.sizes, strict=True):
        if size > built:
            raise UserError(
                f"a layer of {size:,} neurons does not fit into {built:,} of the RadiX-Net {net}: make it wider, as by "
                f"{show_widths(widths_for(net.order, sizes))}"
            )
    return kernel_masks(net.graphs, kernels)


def _check_count(lists: Lists, kernels: Kernels) -> None:
    if (count := sum(map(len, lists))) != len(kernels):
        names = ", ".join(name.removesuffix("/kernel") for name in kernels)
        raise UserError(
            f"radices {show_lists(lists)}: {count} of them for {len(kernels)} layers with a mask ({names}): give one "
            f"each, or {EXEMPT}"
        )


def radix_topology(
    kernels: Kernels, lists: Lists | None, widths: tuple[int, ...] | None, density: float | None
) -> tuple[Masks, str | None]:
    """The masks of kernels in series, and a line that says which net was chosen and what was cut; None if neither.

    Args:
      kernels: name to shape, in series, in this order.
      lists: radices; None for the nearest net to the density.
      widths: of the lists; None for the least that cover the kernels.
      density: in (0, 1], of these kernels together; of no account where lists are given.

    Raises:
      UserError: see `radix_net`, `nearest` and `radix_masks`.
    """
    layers = layers_of(kernels)
    if lists is None:
        net = nearest(layers, density)
        masks = radix_masks(net, kernels)
        return masks, nearest_line(f"RadiX-Net {net}", masks, net.sizes, density)
    if widths is None:
        _check_lists(lists)
        _check_count(lists, kernels)
        widths = widths_for(math.prod(lists[0]), layers.sizes)
    net = radix_net(lists, widths)
    masks = radix_masks(net, kernels)
    return masks, cut(masks, net.sizes)
