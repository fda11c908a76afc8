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
    asked: int | None = None  # connections that the level stands for, where a structure may leave some out


class Family(NamedTuple):
    """How an allocation shares the connections out among the layers."""

    density: Density  # relative density of a layer of the given shape, inputs before outputs
    has_epsilon: bool  # epsilon times the relative density is a density in its own right
    dense_first: bool  # the first layer is dense
    may_starve: bool  # a layer may be left without a connection


def _uniform(shape: tuple[int, ...]) -> float:
    """p ∝ 1: every layer has the same density."""
    return 1.0


def _erdos_renyi(shape: tuple[int, ...]) -> float:
    """p ∝ (n_in + n_out) / (n_in n_out), over channels for convolutions (Mocanu et al. 2018, eq. 3)."""
    return sum(shape[-2:]) / math.prod(shape[-2:])


def _erk(shape: tuple[int, ...]) -> float:
    """p ∝ Σ shape / Π shape: Erdős-Rényi that counts the kernel's extent (Evci et al. 2020)."""
    return sum(shape) / math.prod(shape)


def _balanced(shape: tuple[int, ...]) -> float:
    """p ∝ 1 / Π shape: every layer has the same number of connections."""
    return 1 / math.prod(shape)


# `global` fixes the total alone: scores of all layers are ranked together, and its counts by layer are the nominal
# ones of a uniform density, for reports.
ALLOCATIONS: dict[str, Family] = {
    "uniform": Family(_uniform, has_epsilon=False, dense_first=False, may_starve=False),
    "uniform_dense_first": Family(_uniform, has_epsilon=False, dense_first=True, may_starve=False),
    "erdos_renyi": Family(_erdos_renyi, has_epsilon=True, dense_first=False, may_starve=False),
    "erk": Family(_erk, has_epsilon=True, dense_first=False, may_starve=False),
    "balanced": Family(_balanced, has_epsilon=False, dense_first=False, may_starve=False),
    "global": Family(_uniform, has_epsilon=False, dense_first=False, may_starve=True),
}


class _Request(NamedTuple):
    """What a network asks for under an allocation, by layer."""

    sizes: dict[str, int]
    relative: dict[str, float]  # relative densities
    dense: frozenset[str]  # dense whatever the total
    least: int  # connections that no layer may be below


def _request(name: str, shapes: Shapes, power: float, first: str | None) -> _Request:
    family = ALLOCATIONS[name]
    if power != 1 and name != "erk":
        raise ValueError(f"the allocation {name} has no power, erk has")
    if family.dense_first and first not in shapes:
        raise ValueError(f"the allocation {name} needs the first layer, one of {', '.join(shapes)}; got {first}")
    return _Request(
        sizes={layer: math.prod(shape) for layer, shape in shapes.items()},
        relative={layer: family.density(shape) ** power for layer, shape in shapes.items()},
        dense=frozenset({first} if family.dense_first else ()),
        least=0 if family.may_starve else 1,
    )


def _share_out(total: int, ideal: dict[str, float], sizes: dict[str, int]) -> dict[str, int]:
    """Round ideal counts to integers that sum to `total` (largest remainder, no layer over its size)."""
    counts = {name: min(sizes[name], math.floor(value)) for name, value in ideal.items()}
    by_remainder = sorted(ideal, key=lambda name: counts[name] - ideal[name])
    while (missing := total - sum(counts.values())) > 0:
        for name in [name for name in by_remainder if counts[name] < sizes[name]][:missing]:
            counts[name] += 1
    return counts


def _solve(request: _Request, total: int) -> tuple[dict[str, float], float]:
    """The ideal counts n_l = ε p_l size_l with Σ n_l = total, and ε; layers that would overflow are dense.

    The layer of largest relative density becomes dense first, then ε is solved again for the others
    (Evci et al. 2020, arXiv:1911.11134, section 3). Every n_l grows with the total. What the layers that are dense
    from the start have beyond the total is missing from the others: negative counts.
    """
    sizes, relative, dense = request.sizes, request.relative, set(request.dense)
    while True:
        rest = {name: relative[name] * sizes[name] for name in sizes if name not in dense}
        left = total - sum(sizes[name] for name in dense)
        epsilon = left / sum(rest.values()) if rest else math.inf
        fullest = max(rest, key=relative.__getitem__, default=None)
        if fullest is None or epsilon * relative[fullest] <= 1:
            break
        dense.add(fullest)
    ideal = {name: float(sizes[name]) if name in dense else epsilon * rest[name] for name in sizes}
    return ideal, epsilon


def _fault(request: _Request, total: int, ideal: dict[str, float]) -> str | None:
    """What is wrong with a total of connections, if anything is."""
    if total < 1:
        return "leaves the network without connections"
    name = min(ideal, key=ideal.__getitem__)
    if ideal[name] < request.least - 1e-9:  # less than a whole connection
        return f"leaves {name} without connections"
    if request.dense == request.sizes.keys() and total < sum(request.sizes.values()):
        return f"leaves {name} sparse"
    return None


def _largest_sparsity(request: _Request) -> float:
    """The largest sparsity, rounded down to six digits, that nothing is wrong with."""
    size = sum(request.sizes.values())
    low, high = 0, size  # counts: `low` is at fault, `high` is not
    while high - low > 1:
        middle = (low + high) // 2
        fault = _fault(request, middle, _solve(request, middle)[0])
        low, high = (middle, high) if fault else (low, middle)
    return math.floor((1 - high / size) * 1e6) / 1e6


def _from_epsilon(name: str, request: _Request, epsilon: float) -> Allocation:
    if not ALLOCATIONS[name].has_epsilon:
        raise UserError(f"--epsilon does not define a {name} allocation: use --sparsity, or erdos_renyi")
    sizes = request.sizes
    scale = {layer: request.relative[layer] * size for layer, size in sizes.items()}
    counts = {layer: round(min(size, epsilon * scale[layer])) for layer, size in sizes.items()}
    if min(counts.values()) < 1:
        starved = min(scale, key=scale.__getitem__)
        least = 0.5 / scale[starved] * (1 + 1e-5)  # beyond a half when rounded to six digits
        raise UserError(f"--epsilon={epsilon} leaves {starved} without connections: the least is {least:g}")
    return Allocation(counts, epsilon)


def allocate(
    name: str,
    shapes: Shapes,
    *,
    sparsity: float | None,
    epsilon: float | None,
    power: float = 1.0,
    first: str | None = None,
    setting: str = "sparsity",
) -> Allocation:
    """Counts of all layers, from exactly one of `sparsity` and `epsilon`.

    From a sparsity s the counts sum to round((1 − s) Σ size) exactly. From epsilon each layer has
    min(size, round(ε p size)) connections, with p the layer's relative density: ε (n_in + n_out) for a
    dense kernel.

    Args:
      name: a key of ALLOCATIONS.
      shapes: layer name to kernel shape, inputs before outputs.
      sparsity: in [0, 1), of all these kernels together.
      epsilon: positive.
      power: in [0, ∞), of the relative densities of erk (`erk_power_scale` in the code of Evci et al. 2020): 0 is
        uniform, and 1, the plain allocation, is the only one that the others have.
      first: the layer that uniform_dense_first makes dense; the order of `shapes` means nothing. The others ignore it.
      setting: what the sparsity is called in messages.

    Raises:
      UserError: for an unknown name, epsilon with an allocation that it does not define, or a level at which a
        layer's ideal share is less than one connection (with global: at which none is left in all); the message
        names the largest possible sparsity.
      ValueError: for a power that is not erk's, or uniform_dense_first without its first layer.
    """
    if name not in ALLOCATIONS:
        raise unknown("allocation", name, ALLOCATIONS)
    request = _request(name, shapes, power, first)
    if epsilon is not None:
        return _from_epsilon(name, request, epsilon)
    total = round((1 - sparsity) * sum(request.sizes.values()))
    ideal, solved = _solve(request, total)
    if fault := _fault(request, total, ideal):
        raise UserError(
            f"--{setting}={sparsity} {fault}: with the {name} allocation the maximum is "
            f"{_largest_sparsity(request):.6f}"
        )
    has_epsilon = ALLOCATIONS[name].has_epsilon and math.isfinite(solved)
    return Allocation(_share_out(total, ideal, request.sizes), solved if has_epsilon else None)


def _checked_level(layer: str, level: float) -> float:
    if not 0 <= level < 1:
        raise UserError(f"--layer_sparsity: {layer}={level:g} is not in [0, 1)")
    return level


def parse_layer_sparsity(text: str) -> dict[str, float]:
    """Layer name to sparsity, from "dense_0=0.98:dense_1=0.9:output=0"."""
    levels: dict[str, float] = {}
    for item in text.split(":"):
        layer, _, value = (part.strip() for part in item.partition("="))
        try:
            level = float(value)
        except ValueError:
            layer = ""
        if not layer:
            raise UserError(f"--layer_sparsity: {item!r} is not layer=number; an example: dense_0=0.98:output=0")
        if layer in levels:
            raise UserError(f"--layer_sparsity names {layer} twice")
        levels[layer] = _checked_level(layer, level)
    return levels


def explicit(shapes: Shapes, layer_sparsity: Mapping[str, float]) -> Allocation:
    """round((1 − s_l) size_l) connections for every layer, from a sparsity of its own.

    Args:
      shapes: layer name to kernel shape.
      layer_sparsity: layer name, with or without its "/kernel", to a sparsity in [0, 1); every layer once.

    Raises:
      UserError: for an unknown layer, one left out or named twice, a level outside [0, 1), or a layer left without
        a connection.
    """
    known = {layer.removesuffix("/kernel"): layer for layer in shapes}
    counts: dict[str, int] = {}
    for given, level in layer_sparsity.items():
        short = given.removesuffix("/kernel")
        if short not in known:
            raise unknown("layer of --layer_sparsity", given, known)
        if known[short] in counts:
            raise UserError(f"--layer_sparsity names {short} twice")
        size = math.prod(shapes[known[short]])
        counts[known[short]] = round((1 - _checked_level(short, level)) * size)
        if counts[known[short]] < 1:
            maximum = math.floor((1 - 1 / size) * 1e6) / 1e6
            raise UserError(f"--layer_sparsity leaves {short} without connections: its maximum is {maximum:.6f}")
    if missing := [short for short, layer in known.items() if layer not in counts]:
        raise UserError(f"--layer_sparsity does not name {', '.join(missing)}: {missing[0]}=0 is dense")
    return Allocation({layer: counts[layer] for layer in shapes}, None)
