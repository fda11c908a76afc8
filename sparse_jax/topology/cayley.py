"""Explicit expanders: Cayley graphs whose expansion is proved, not only likely. Plain NumPy and Python.

Explicit X-Nets (Prabhu et al. 2018, arXiv:1711.08757) are Cayley graphs of expanders, which their published code has
none of: it draws its graphs at random, as `random_graphs.fan_in` and `expander` do. Ours are those of Chung 1989, which
are small, and are made as wide as a layer as RadiX-Nets are (`circulant`); equal widths, as a Cayley graph needs, are
those of its N places.
"""

import math
from functools import cache

import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.topology.circulant import (
    EXEMPT,
    Circulant,
    Kernels,
    Layers,
    Masks,
    connections_by_step,
    kernel_masks,
    layers_of,
    nearest_line,
    show_widths,
    surplus,
    widths_for,
)


@cache
def chung(q: int) -> Circulant:
    """The difference graph of Chung 1989 (Diameters and eigenvalues, doi:10.1090/S0894-0347-1989-0965008-X).

        N = q² − 1,   steps = {log_θ(θ + a) : a in F_q},   θ a generator of the multiplicative group of F_{q²}

    Its degree is q, and each singular value but the first at most √q, by Katz's bound of |Σ_a χ(θ + a)| for a
    character χ that is not trivial. No graph of this degree has less than √((N q − q²) / (N − 1)) there, the root of
    the mean square. θ is the root x of the first x² = b x + c, by b, then c, that generates: the same everywhere.

    Args:
      q: a prime.
    """
    order = q * q - 1
    logs = next(logs for b in range(q) for c in range(1, q) if len(logs := _powers(q, b, c)) == order)
    return Circulant(order, tuple(sorted(logs[a, 1] for a in range(q))))


def _powers(q: int, b: int, c: int) -> dict[tuple[int, int], int]:
    """The logarithm of each power of x, where x² = b x + c modulo q; (u, w) is u + w x.

    There are q² − 1 powers only if F_q[x] / (x² − b x − c) is a field and x one of its generators: other rings have
    fewer units.
    """
    logs, power = {}, (1, 0)
    while power not in logs:
        logs[power] = len(logs)
        u, w = power
        power = w * c % q, (u + w * b) % q
    return logs


def _primes(most: int) -> list[int]:
    return [q for q in range(2, most + 1) if all(q % divisor for divisor in range(2, math.isqrt(q) + 1))]


def nearest(layers: Layers, density: float) -> Circulant:
    """The graph that, as wide as the layers and cropped to them, is nearest to a density.

    The distance is that of `radix_search`; N is at most twice the largest layer, and no neuron may be left without a
    connection. Raises UserError if that leaves none.
    """
    found, least = None, math.inf
    inputs, outputs = np.array(layers.pairs).T[:, :, None]
    shares = np.array(layers.copies) * (inputs * outputs)[:, 0] / layers.entries
    for graph in map(chung, _primes(math.isqrt(2 * max(layers.sizes) + 1))):
        connections = connections_by_step(graph.order, inputs, outputs, np.array(graph.steps)).sum(1)
        away = np.log(connections / ((inputs * outputs)[:, 0] * density)) ** 2
        distance = math.sqrt(shares @ away) + float(surplus(graph.order, layers.sizes))
        if distance < least and all(graph.connects(*pair) for pair in layers.pairs):
            found, least = graph, distance
    if found is None:
        raise UserError(
            f"no Cayley expander joins layers of {', '.join(map(str, layers.sizes))}, too small ones for it: {EXEMPT}"
        )
    return found


def cayley_topology(kernels: Kernels, density: float) -> tuple[Masks, str]:
    """The masks of kernels in series, and a line that says which expander was chosen and what was cut.

    Args:
      kernels: name to shape, in series, in this order.
      density: in (0, 1], of these kernels together.

    Raises:
      UserError: the kernels are not in series, or no expander joins them.
    """
    layers = layers_of(kernels)
    graph = nearest(layers, density)
    masks = kernel_masks([graph] * len(kernels), kernels)
    widths = widths_for(graph.order, layers.sizes)
    what = f"Cayley expander of {graph.order:,} places and degree {len(graph.steps)}, {show_widths(widths)}"
    return masks, nearest_line(what, masks, [graph.order * width for width in widths], density)
