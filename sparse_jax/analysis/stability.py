"""What tells that a training was unstable, beside its status (`study.rows`): classes, neurons and losses."""

import math
from collections.abc import Iterable

import numpy as np

SPIKE = 0.1  # of the loss of guessing, ln(classes), that a loss is higher than its lowest in a spike [ours]
SAME = 1e-6  # of the largest value of a layer: what values differ by that are equal but for rounding [ours]


def dead_classes(examples: np.ndarray, predicted: np.ndarray) -> list[int]:
    """The classes that have examples, int[classes], and are never predicted of any example, int[classes]."""
    return np.flatnonzero((examples > 0) & (predicted == 0)).tolist()


def silent_neurons(low: np.ndarray, high: np.ndarray) -> int | None:
    """How many neurons of a layer have the same value for every example: they say nothing of their inputs.

    A ReLU that never fires is one, a sigmoid that is always saturated, and whatever has no inputs left.

    Args:
      low, high: float[neurons], the least and the largest value of each.

    Returns:
      None if a value is not finite: of a network that has diverged nothing is known.
    """
    low, high = np.float64(low), np.float64(high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    return int(np.sum(high - low <= SAME * max(np.abs(low).max(), np.abs(high).max())))


def loss_spikes(losses: Iterable[float | None], classes: int) -> int:
    """How often a loss rises above the lowest before it by more than SPIKE · ln(classes).

    Evaluations above that follow each other count as one; so does a rise from which the loss does not come back. A loss
    that is not finite, or None, is divergence, and is passed over.
    """
    margin, lowest, above, count = SPIKE * math.log(classes), math.inf, False, 0
    for loss in losses:
        if loss is None or not math.isfinite(loss):
            continue
        before, above = above, loss > lowest + margin
        count, lowest = count + (above and not before), min(lowest, loss)
    return count
