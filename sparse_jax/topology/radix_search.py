"""Which list of radices makes the RadiX-Net that is nearest to a density."""

import math
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np

from sparse_jax.topology.circulant import Layers, connections_by_step, surplus

Costs = Callable[[int], tuple[list[int], np.ndarray]]  # of a place value, see `_costs`


def nearest_list(layers: Layers, density: float) -> tuple[int, ...]:
    """The radices of the net that is nearest to a density once it is cropped to the layers.

        distance = √(Σ_i share_i ln²(density of kernel i, cropped / density asked for)) + Σ_i ln(N' B_i / n_i)

    with share_i the share of the entries that kernel i has (ours: the density of all kernels together would be met by
    radices as far apart as 27 and 2; for the second sum see `circulant.surplus`). It is the least over all nets of one
    list of radices that repeats itself, of which the last one is a prefix of any length, with the least widths that
    cover the layers; N' is at most twice the largest layer. No net counts of which cropping would leave a neuron
    without a connection. Of equally near ones the largest N' wins, then the shortest list, then the first by its
    radices.

    Args:
      layers: see `circulant.layers_of`.
      density: in (0, 1].

    Returns:
      the list; one radix alone is the dense net.
    """
    found, least = (), math.inf
    orders = np.arange(2, 2 * max(layers.sizes) + 1)
    beyond = surplus(orders, layers.sizes)
    for at in np.lexsort((-orders, beyond)):
        if beyond[at] >= least:
            break
        order = int(orders[at])
        costs = cache(partial(_costs, order, layers=layers, density=density))
        for length in range(1, min(len(layers.copies), order.bit_length()) + 1):
            for radices, cost in _lists(order, length, costs, (least - beyond[at]) ** 2):
                if (distance := beyond[at] + math.sqrt(cost)) < least:
                    found, least = radices, distance
    return found


def _costs(order: int, place: int, layers: Layers, density: float) -> tuple[list[int], np.ndarray]:
    """The radices that a place value may have, and what each adds under the root as that of each layer.

    The second is float64[radices, layers], infinite where cropping leaves a neuron without a connection. The steps of a
    radix are 0, v, … (r − 1) v. So each input in [0, t) of N' reaches an output in [0, s) iff t ≤ s, or they go far
    enough to lead any of them around, N' ≤ s + (r − 1) v, which they do not if v > s. Each output is reached iff s ≤ t,
    or they go far enough without a gap: v ≤ t and s ≤ t + (r − 1) v.
    """
    rest = order // place
    radices = np.flatnonzero(rest % np.arange(1, rest + 1) == 0)[1:] + 1
    inputs, outputs = np.array(layers.pairs).T[:, :, None]
    entries, furthest = inputs * outputs, (radices - 1) * place
    t, s = np.minimum(inputs, order), np.minimum(outputs, order)
    linked = (t <= s) | (order <= s + furthest)
    linked &= (s <= t) | ((place <= t) & (s <= t + furthest))
    connections = np.cumsum(connections_by_step(order, inputs, outputs, np.arange(0, order, place)), 1)[:, radices - 1]
    shares = np.array(layers.copies)[:, None] * entries / layers.entries
    return radices.tolist(), np.where(linked, shares * np.log(connections / (entries * density)) ** 2, np.inf).T


def _lists(order: int, length: int, costs: Costs, most: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """The lists of so many radices whose product is the order, and what they add under the root, below `most`."""

    @cache
    def choices(place: int, position: int) -> list[tuple[int, float]]:
        radices, table = costs(place)
        return list(zip(radices, table[:, position::length].sum(1).tolist(), strict=True))

    def extend(radices: tuple[int, ...], place: int, total: float) -> Iterator[tuple[tuple[int, ...], float]]:
        if place == order:
            yield radices, total
            return
        last = len(radices) == length - 1
        for radix, cost in choices(place, len(radices)):
            fits = place * radix == order if last else place * radix < order
            if fits and total + cost < most:
                yield from extend((*radices, radix), place * radix, total + cost)

    return extend((), 1, 0.0)
