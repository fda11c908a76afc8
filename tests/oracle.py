"""Plain NumPy versions of what the papers say, written without a look at the JAX code's way of doing it."""

import numpy as np


def top_k(score: np.ndarray, k: int, eligible: np.ndarray) -> np.ndarray:
    """The k eligible entries of largest score by a stable sort; ties go to the lower flat index."""
    flat, candidates = score.ravel(), np.flatnonzero(eligible)
    best_first = sorted(candidates, key=lambda i: (-float(flat[i]), i))
    selected = np.zeros(flat.size, bool)
    selected[best_first[: max(k, 0)]] = True
    return selected.reshape(score.shape)


def drop(mask: np.ndarray, weight: np.ndarray, fraction: float, per_sign: bool) -> np.ndarray:
    """The survivors of SET and RigL: ⌊ζ n⌋ of the smallest |w| go, per sign or of all (zeros are positive)."""
    active = mask.sum()
    limit = np.float32(mask.size - active) / np.float32(max(active, 1))
    fraction = min(np.float32(fraction), limit)
    groups = [mask & ~(weight < 0), mask & (weight < 0)] if per_sign else [mask]
    survivors = np.zeros_like(mask)
    for group in groups:
        dropped = int(np.floor(fraction * np.float32(group.sum())))
        survivors |= top_k(np.abs(weight), int(group.sum()) - dropped, group)
    return survivors


def grow(survivors: np.ndarray, score: np.ndarray, count: int) -> np.ndarray:
    """Add the positions of largest score outside the survivors until there are `count` connections."""
    return survivors | top_k(score, count - int(survivors.sum()), ~survivors)
