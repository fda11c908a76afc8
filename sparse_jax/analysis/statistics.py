"""Statistics over seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean and the half width of its confidence interval, None for a single value."""

    mean: float
    half_width: float | None


def t_interval(values: Sequence[float], confidence: float) -> Interval:
    """Student's t interval of the mean: t_{(1 + confidence) / 2, n − 1} s / √n.

    Args:
      values: one a seed, at least one.
      confidence: in (0, 1), such as 0.95.
    """
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None)
    quantile = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return Interval(mean, float(quantile * np.std(values, ddof=1) / np.sqrt(len(values))))
