"""How many connections each layer gets: from a sparsity or from epsilon to integer counts.

Plain NumPy and Python, because flags are validated with it before jax is imported.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sparse_jax.errors import UserError, unknown

Shapes = Mapping[str, tuple[int, ...]]
Density = Callable[[tuple[int, ...]], float]


class Allocation(NamedTuple):
    """Integer counts by layer, and the epsilon they correspond to where that is defined."""

    counts: dict[str, int]
    epsilon: float | None


def _uniform(shape: tuple[int, ...]) -> float:
    """p ∝ 1: every layer has the same density."""
    return 1.0


def _erdos_renyi(shape: tuple[int, ...]) -> float:
    """p ∝ (n_in + n_out) / (n_in n_out), over channels for convolutions (Mocanu et al. 2018, eq. 3)."""
    return sum(shape[-2:]) / math.prod(shape[-2:])


def _erk(shape: tuple[int, ...]) -> float:
    """p ∝ Σ shape / Π shape: Erdős-Rényi that counts the kernel's extent (Evci et al. 2020)."""
    return sum(shape) / math.prod(shape)


# Relative density of a layer of the given shape (inputs before outputs).
ALLOCATIONS: dict[str, Density] = {
    "uniform": _uniform,
    "erdos_renyi": _erdos_renyi,
    "erk": _erk,
}


def _share_out(total: int, ideal: dict[str, float], sizes: dict[str, int]) -> dict[str, int]:
    """Round ideal counts to integers that sum to `total` (largest remainder, no layer over its size)."""
    counts = {name: min(sizes[name], math.floor(value)) for name, value in ideal.items()}
    by_remainder = sorted(ideal, key=lambda name: counts[name] - ideal[name])
    while (missing := total - sum(counts.values())) > 0:
        for name in [name for name in by_remainder if counts[name] < sizes[name]][:missing]:
            counts[name] += 1
    return counts


def _solve(density: Density, shapes: Shapes, total: int) -> tuple[dict[str, float], float]:
    """The ideal counts n_l = ε p_l size_l with Σ n_l = total, and ε; layers that would overflow are dense.

    The layer of largest relative density becomes dense first, then ε is solved again for the others
    (Evci et al. 2020, arXiv:1911.11134, section 3). Every n_l grows with the total.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    relative = {name: density(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = {name: relative[name] * sizes[name] for name in shapes if name not in dense}
        left = total - sum(sizes[name] for name in dense)
        epsilon = left / sum(rest.values()) if rest else math.inf
        fullest = max(rest, key=relative.__getitem__, default=None)
        if fullest is None or epsilon * relative[fullest] <= 1:
            break
        dense.add(fullest)
    ideal = {name: float(sizes[name]) if name in dense else epsilon * rest[name] for name in shapes}
    return ideal, epsilon


def _starved(ideal: dict[str, float]) -> str | None:
    """The layer with least of a connection, if one has less than a whole one."""
    name = min(ideal, key=ideal.__getitem__)
    return name if ideal[name] < 1 - 1e-9 else None


def _largest_sparsity(density: Density, shapes: Shapes) -> float:
    """The largest sparsity, rounded down to six digits, that leaves every layer a connection."""
    size = sum(math.prod(shape) for shape in shapes.values())
    low, high = 0, size  # counts: `low` starves a layer, `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        starved = _starved(_solve(density, shapes, middle)[0])
        low, high = (middle, high) if starved else (low, middle)
    return math.floor((1 - high / size) * 1e6) / 1e6


def _from_epsilon(density: Density, shapes: Shapes, epsilon: float) -> Allocation:
    if density is _uniform:
        raise UserError("--epsilon does not define a uniform allocation: use --sparsity, or erdos_renyi")
    scale = {name: density(shape) * math.prod(shape) for name, shape in shapes.items()}
    counts = {name: round(min(math.prod(shapes[name]), epsilon * scale[name])) for name in shapes}
    if min(counts.values()) < 1:
        starved = min(scale, key=scale.__getitem__)
        least = math.ceil(0.5 / scale[starved] * 1e6 + 1) / 1e6
        raise UserError(f"--epsilon={epsilon} leaves {starved} without connections: the least is {least:g}")
    return Allocation(counts, epsilon)


def allocate(name: str, shapes: Shapes, *, sparsity: float | None, epsilon: float | None) -> Allocation:
    """Counts of all layers, from exactly one of `sparsity` and `epsilon`.

    From a sparsity s the counts sum to round((1 − s) Σ size) exactly. From epsilon each layer has
    min(size, round(ε p size)) connections, with p the layer's relative density: ε (n_in + n_out) for a
    dense kernel.

    Args:
      name: a key of ALLOCATIONS.
      shapes: layer name to kernel shape, inputs before outputs.
      sparsity: in [0, 1), of all these kernels together.
      epsilon: positive.

    Raises:
      UserError: for an unknown name, epsilon with the uniform allocation, or a level at which a layer's ideal
        share is less than one connection; the message names the largest possible sparsity.
    """
    if name not in ALLOCATIONS:
        raise unknown("allocation", name, ALLOCATIONS)
    density = ALLOCATIONS[name]
    if epsilon is not None:
        return _from_epsilon(density, shapes, epsilon)
    sizes = {layer: math.prod(shape) for layer, shape in shapes.items()}
    total = round((1 - sparsity) * sum(sizes.values()))
    ideal, solved = _solve(density, shapes, total)
    if starved := _starved(ideal):
        raise UserError(
            f"--sparsity={sparsity} leaves {starved} without connections: with the {name} allocation the "
            f"maximum is {_largest_sparsity(density, shapes):.6f}"
        )
    has_epsilon = density is not _uniform and math.isfinite(solved)
    return Allocation(_share_out(total, ideal, sizes), solved if has_epsilon else None)
