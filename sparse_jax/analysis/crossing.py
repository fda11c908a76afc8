"""Runs as one long table in which settings are crossed: what analyses of factors are made from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

SEED, VALUE, RUN, STATUS = "seed", "value", "run_id", "status"


class Response(NamedTuple):
    """What is measured of a run, and how it is told."""

    name: str  # "test accuracy"
    unit: str  # "points"
    scale: float  # units by one of the response: 100
    least: float  # the least effect that is worth a rule, in the response itself


class Crossed(NamedTuple):
    """The runs that have a value of every factor and a response.

    Attributes:
      table: one row a run: the factors as text, `seed`, `value` (float, finite), `run_id`, `status`.
      factors: the columns with at least two values, in the order given.
      orders: by factor, its values that occur, numbers by size, names in the order given.
      inapplicable: runs left out because a factor does not apply to them, such as the sparsity of a dense one.
      unmeasured: other runs left out because they have no finite response: failed, unfinished, diverged.
    """

    table: pd.DataFrame
    factors: tuple[str, ...]
    orders: dict[str, tuple[str, ...]]
    inapplicable: int
    unmeasured: int


def cross(table: pd.DataFrame, orders: dict[str, Sequence[str]], absent: str) -> Crossed:
    """Keep the runs that stand in the crossing of all factors.

    Args:
      table: one row a run, with a column for each factor, `seed`, `value`, `run_id` and `status`.
      orders: factor -> its values, in their order.
      absent: the value of a factor that does not apply.
    """
    applies = (table[list(orders)] != absent).all(axis="columns")
    known = np.isfinite(table[VALUE].astype(float))
    kept = table[applies & known].reset_index(drop=True).astype({VALUE: float})
    found = {name: _sorted([one for one in order if one in set(kept[name])]) for name, order in orders.items()}
    several = {name: values for name, values in found.items() if len(values) > 1}
    return Crossed(kept, tuple(several), several, int((~applies).sum()), int((applies & ~known).sum()))


def _sorted(values: list[str]) -> tuple[str, ...]:
    return tuple(sorted(values, key=float)) if is_ordered(values) else tuple(values)


def is_ordered(values: Sequence[str]) -> bool:
    """Whether the values are numbers, so that one of them has neighbours."""
    try:
        return len([float(one) for one in values]) > 0
    except ValueError:
        return False
