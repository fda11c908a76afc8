"""What curves of accuracy against removed connections come down to. Imports no jax."""

from collections.abc import Mapping, Sequence

import numpy as np

from sparse_jax.config import DECILES


def area(fractions: Sequence[float], accuracies: Sequence[float]) -> float | None:
    """The mean accuracy over the fractions removed, by the trapezoidal rule.

        A = Σᵢ (qᵢ₊₁ − qᵢ) (aᵢ + aᵢ₊₁) / 2 / (q_last − q_first)

    Args:
      fractions: q in [0, 1], in any order, each once.
      accuracies: a in [0, 1], one each.

    Returns:
      in [0, 1]; None of fewer than two fractions.
    """
    if len(fractions) < 2:
        return None
    order = np.argsort(fractions)
    q, a = np.asarray(fractions, float)[order], np.asarray(accuracies, float)[order]
    return float(np.trapezoid(a, q) / (q[-1] - q[0]))


def decile_losses(points: Sequence[Mapping[str, float | None]]) -> list[float | None]:
    """By how much accuracy falls without each decile of the connections, the smallest first; None where unknown.

    Args:
      points: with `from`, `to` and `accuracy`; one of them is of the whole network.
    """
    before = next(point["accuracy"] for point in points if point["from"] == point["to"])
    parts = sorted((point for point in points if point["from"] < point["to"]), key=lambda point: point["from"])
    return [None if None in (before, point["accuracy"]) else before - point["accuracy"] for point in parts]


def cuts_of(name: str, fractions: Sequence[float]) -> list[tuple[float, float]]:
    """The cuts of an order, as the fractions of its connections between which they go."""
    if name != "decile":
        return [(0.0, fraction) for fraction in fractions]
    return [(0.0, 0.0), *((i / DECILES, (i + 1) / DECILES) for i in range(DECILES))]


def bounds(cuts: Sequence[tuple[float, float]], connections: int) -> np.ndarray:
    """int32[cuts, 2]: the ranks [a, b) that go, ⌊q n + 1/2⌋ at every fraction q of n connections."""
    return np.floor(np.asarray(cuts) * connections + 0.5).astype(np.int32).reshape(len(cuts), 2)


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None of fewer than three, or of equal values."""
    from scipy import stats

    if first.size < 3 or np.ptp(first) == 0 or np.ptp(second) == 0 or not np.isfinite([first, second]).all():
        return None
    return float(stats.spearmanr(first, second).statistic)
