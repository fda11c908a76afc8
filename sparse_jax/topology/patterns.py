"""Where in a kernel connections may lie, as one view of it: groups of units, each unit one or more connections.

    pattern        groups                          units of a group
    none           1                               every connection
    fan_in         the output neurons              their inputs
    N:M            M consecutive inputs of one     these M connections, of which N are active
                   output neuron
    R×C            1                               blocks of R inputs × C outputs

Every group has as many active units as the others, and a unit is active as a whole. Plain Python, so that a
pattern that does not fit a kernel is refused before jax is imported; the views take any array.
"""

import math
import re
from typing import Any, Literal, NamedTuple

from sparse_jax.errors import UserError


class Pattern(NamedTuple):
    """A structure of connections; `first` and `second` are N and M, or R and C."""

    kind: Literal["none", "fan_in", "n_of_m", "block"] = "none"
    first: int = 1
    second: int = 1

    @property
    def unit(self) -> int:
        """Connections of a unit."""
        return self.first * self.second if self.kind == "block" else 1


def parse_pattern(text: str) -> Pattern:
    """none, fan_in, N:M such as 2:4, or RxC such as 4x4. Raises UserError for anything else."""
    if text in ("none", "fan_in"):
        return Pattern(text)
    if match := re.fullmatch(r"(\d+)([:x])(\d+)", text):
        first, second = int(match[1]), int(match[3])
        if match[2] == "x" and min(first, second) > 0:
            return Pattern("block", first, second)
        if match[2] == ":" and 0 < first < second:
            return Pattern("n_of_m", first, second)
    raise UserError(f"{text!r} is no structure: none, fan_in, N:M with 0 < N < M as 2:4, or RxC as 4x4")


def groups_of(pattern: Pattern, shape: tuple[int, ...]) -> int:
    """How many groups a kernel has; inputs before outputs.

    Raises:
      UserError: where N:M or a block does not divide the kernel.
    """
    inputs, outputs = math.prod(shape[:-1]), shape[-1]
    if pattern.kind == "n_of_m" and inputs % pattern.second:
        raise UserError(f"{pattern.first}:{pattern.second} does not divide {inputs} inputs")
    if pattern.kind == "block" and (inputs % pattern.first or outputs % pattern.second):
        raise UserError(f"blocks of {pattern.first}x{pattern.second} do not divide {inputs}x{outputs}")
    return {"none": 1, "block": 1, "fan_in": outputs, "n_of_m": outputs * (inputs // pattern.second)}[pattern.kind]


def to_units(pattern: Pattern, x: Any) -> Any:
    """The kernel-shaped `x` as [groups, units, connections of a unit]."""
    inputs, outputs = math.prod(x.shape[:-1]), x.shape[-1]
    if pattern.kind == "none":
        return x.reshape(1, -1, 1)
    if pattern.kind == "block":
        rows, columns = inputs // pattern.first, outputs // pattern.second
        blocks = x.reshape(rows, pattern.first, columns, pattern.second).transpose(0, 2, 1, 3)
        return blocks.reshape(1, rows * columns, pattern.unit)
    return x.reshape(inputs, outputs).T.reshape(groups_of(pattern, x.shape), -1, 1)


def from_units(pattern: Pattern, units: Any, shape: tuple[int, ...]) -> Any:
    """The inverse of `to_units` for a kernel of `shape`."""
    inputs, outputs = math.prod(shape[:-1]), shape[-1]
    if pattern.kind == "none":
        return units.reshape(shape)
    if pattern.kind == "block":
        rows, columns = inputs // pattern.first, outputs // pattern.second
        blocks = units.reshape(rows, columns, pattern.first, pattern.second).transpose(0, 2, 1, 3)
        return blocks.reshape(shape)
    return units.reshape(outputs, inputs).T.reshape(shape)


def keeps(pattern: Pattern, mask: Any) -> bool:
    """Whether a mask has whole units, and as many in every group, but for the groups that have none.

    Of N:M that is N in every group; neurons without a connection may have been ablated.
    """
    units = to_units(pattern, mask)
    active = units[:, :, 0]
    counts = {int(n) for n in active.sum(1)} - {0}
    wanted = {pattern.first} if pattern.kind == "n_of_m" else counts
    return bool((units == units[:, :, :1]).all()) and len(counts) <= 1 and counts <= wanted


def fitting(pattern: Pattern, shape: tuple[int, ...], count: int) -> int:
    """The most connections, at most `count`, that the pattern can have in a kernel."""
    multiple = groups_of(pattern, shape) * pattern.unit
    return count // multiple * multiple
