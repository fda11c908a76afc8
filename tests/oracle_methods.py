"""The methods of METHODS.md a second time: plain NumPy in float64, sequential, written from the papers.

Everything is by layer, as dicts of arrays called by the name of the kernel. `oracle.top_k` is the one exact choice of
"the k largest", ties to the lower flat index. Where only floats of the run decide (which |w| is smaller), these
functions are given the floats of the run, so that masks have to agree bit for bit. The last part reads a run.
"""

import math
from fractions import Fraction

import jax
import numpy as np

from sparse_jax.data.batches import batch_indices
from sparse_jax.training.parts import ORDER
from tests.oracle import top_k
from tests.tiny import SIZES, make_data

Layers = dict[str, np.ndarray]
LAYERS = ("dense_0", "dense_1", "output")  # of tests.tiny
FULL = {"dense_0/kernel": np.int32(168), "dense_1/kernel": np.int32(140), "output/kernel": np.int32(30)}


def float_floor(fraction: float, count: int) -> int:
    """⌊ζ n⌋ in float32."""
    return int(np.floor(np.float32(fraction) * np.float32(count)))


def moves(fraction: float, mask: np.ndarray) -> int:
    """⌊ζ n⌋, but no more than there is room for: the connections that a layer by itself drops and grows."""
    active = int(mask.sum())
    return float_floor(min(np.float32(fraction), np.float32(mask.size - active) / np.float32(max(active, 1))), active)


# --- a network of ReLU layers ----------------------------------------------------------------------


def gradients(kernels: Layers, biases: Layers, x: np.ndarray, y: np.ndarray) -> tuple[float, Layers, Layers]:
    """(mean cross entropy, its dense gradients by the kernels, by the biases); layers in the order of the dicts."""
    names, inputs, active = list(kernels), [np.float64(x)], []
    for name in names:
        before = inputs[-1] @ np.float64(kernels[name]) + np.float64(biases[name])
        active.append(before > 0)
        inputs.append(np.maximum(before, 0) if name != names[-1] else before)
    shifted = np.exp(inputs[-1] - inputs[-1].max(1, keepdims=True))
    probability = shifted / shifted.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(probability[rows, y]).mean()
    probability[rows, y] -= 1
    back, by_kernel, by_bias = probability / len(y), {}, {}
    for i in reversed(range(len(names))):
        back = back if i == len(names) - 1 else back * active[i]
        by_kernel[names[i]], by_bias[names[i]] = inputs[i].T @ back, back.sum(0)
        back = back @ np.float64(kernels[names[i]]).T
    return loss, by_kernel, by_bias


# --- connections that move between layers ----------------------------------------------------------


def share_out(total: int, shares: dict[str, float], room: dict[str, int]) -> dict[str, int]:
    """Integers ∝ shares that sum to the total, none above its room: full layers first, then largest remainders."""
    if not any(shares.values()):
        shares = {name: float(n) for name, n in room.items()}
    given, open_layers, left = dict.fromkeys(shares, 0), [n for n in shares if room[n] > 0], total
    while True:
        whole = sum(shares[name] for name in open_layers)
        part = {name: left * shares[name] / whole for name in open_layers}
        full = [name for name in open_layers if part[name] >= room[name]]
        if not full:
            break
        for name in full:
            given[name] = room[name]
            left -= room[name]
            open_layers.remove(name)
    for name in open_layers:
        given[name] = math.floor(part[name])
    by_remainder = sorted(open_layers, key=lambda name: given[name] - part[name])
    for name in by_remainder[: total - sum(given.values())]:
        given[name] += 1
    return given


def snfs(masks: Layers, weights: Layers, momentum: Layers, fraction: float) -> Layers:
    """Dettmers and Zettlemoyer 2019: the masks after an update.

    Each layer drops ⌊ζ n⌋ of its smallest |w|. What all dropped together is shared out in proportion to the mean
    |momentum| of what was active in a layer, and grows where |momentum| is largest.
    """
    survivors, shares, room, dropped = {}, {}, {}, 0
    for name, mask in masks.items():
        gone = float_floor(fraction, mask.sum())
        survivors[name] = top_k(np.abs(weights[name]), int(mask.sum()) - gone, mask)
        active = [abs(float(m)) for m in momentum[name][mask]]
        shares[name], dropped = sum(active) / max(len(active), 1), dropped + gone
        room[name] = int((~survivors[name]).sum())
    grown = share_out(dropped, shares, room)
    return {n: s | top_k(np.abs(momentum[n]), grown[n], ~s) for n, s in survivors.items()}


def dsr(masks: Layers, weights: Layers, threshold: float, fraction: float) -> tuple[Layers, dict[str, int], float]:
    """Mostafa and Wang 2019, Algorithm 1: (survivors, counts after growth, the next threshold)."""
    survivors = {name: mask & (np.abs(weights[name]) >= threshold) for name, mask in masks.items()}
    n = sum(int(mask.sum()) for mask in masks.values())
    kept = {name: int(mask.sum()) for name, mask in survivors.items()}
    dropped, aim = n - sum(kept.values()), fraction * n
    if dropped < (1 - 0.1) * aim:
        threshold = 2 * threshold
    elif dropped > (1 + 0.1) * aim:
        threshold = threshold / 2
    grown = share_out(dropped, dict(kept), {name: masks[name].size - kept[name] for name in masks})
    return survivors, {name: kept[name] + grown[name] for name in masks}, threshold


# --- steps of their own ----------------------------------------------------------------------------


def deepr_step(weight, gradient, positive, mask, rate: float, l1: float) -> np.ndarray:
    """Bellec et al. 2018 without noise: θ = s w goes down by η ∂E/∂θ and by η α, while connected."""
    sign = np.where(positive, 1.0, -1.0)
    theta = sign * weight
    return np.where(mask, sign * (theta - rate * sign * gradient - rate * l1), 0)


class TopKast:
    """Jayakumar et al. 2020 on one network: plain gradient descent, a new choice of both sets after every step."""

    def __init__(self, kernels: Layers, biases: Layers, counts: dict[str, int], factor: float, decay: float, l2: float):
        self.kernels = {name: np.float64(kernel) for name, kernel in kernels.items()}
        self.biases = {name: np.float64(bias) for name, bias in biases.items()}
        self.counts, self.factor, self.decay, self.l2 = counts, factor, decay, l2
        self.choose()

    def choose(self) -> None:
        """A: the largest |w| of each layer, of all its values; B: `factor` as many, A among them."""
        self.forward, self.backward = {}, {}
        for name, kernel in self.kernels.items():
            everywhere, wide = np.ones(kernel.shape, bool), min(round(self.factor * self.counts[name]), kernel.size)
            self.forward[name] = top_k(np.abs(kernel), self.counts[name], everywhere)
            self.backward[name] = top_k(np.abs(kernel), wide, everywhere)

    def used(self) -> Layers:
        """The kernels with zeros outside A: all that the output sees."""
        return {name: np.where(self.forward[name], kernel, 0) for name, kernel in self.kernels.items()}

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        """One step; the loss before it."""
        loss, by_kernel, by_bias = gradients(self.used(), self.biases, x, y)
        for name, kernel in self.kernels.items():
            density = self.counts[name] / kernel.size
            penalty = self.decay * np.where(self.forward[name], kernel, kernel / density)
            slope = by_kernel[name] + penalty + self.l2 * kernel
            self.kernels[name] = np.where(self.backward[name], kernel - rate * slope, kernel)
            self.biases[name] = self.biases[name] - rate * by_bias[name]
        self.choose()
        return loss


# --- scores ----------------------------------------------------------------------------------------


def mest_survivors(mask: np.ndarray, weight: np.ndarray, gradient: np.ndarray, factor: float, drop: int) -> np.ndarray:
    """Yuan et al. 2021: take away the connection of least |w| + λ |∂L/∂w|, `drop` times."""
    survivors = mask.copy()
    for _ in range(drop):
        active = zip(*np.nonzero(survivors), strict=True)
        survivors[min(active, key=lambda at: abs(weight[at]) + factor * abs(gradient[at]))] = False
    return survivors


def path3(mask: np.ndarray) -> np.ndarray:
    """Kovács et al. 2019, eq. 1: Σ a_uj a_ij a_iv / √(k_j k_i) over the paths u–j–i–v, one by one."""
    inputs, outputs = mask.shape
    score = np.zeros(mask.shape)
    for u in range(inputs):
        for v in range(outputs):
            for j in range(outputs):
                for i in range(inputs):
                    if mask[u, j] and mask[i, j] and mask[i, v]:
                        score[u, v] += 1 / math.sqrt(mask[:, j].sum() * mask[i].sum())
    return score


# --- courses ---------------------------------------------------------------------------------------


def cubic_sparsity(start: float, final: float, i: int, n: int) -> float:
    """Zhu and Gupta 2017, eq. 1, at update i of n: s_f + (s_0 − s_f) (1 − i/n)³."""
    return final + (start - final) * (1 - i / n) ** 3


def rate_clock(first: int, back_to: int, levels: int, steps: int) -> tuple[list[int], list[int]]:
    """(where the clock of the learning rate stands at each step, the steps at which it is set back).

    It runs from 0 to `first`, and after each of the prunings again from `back_to`; the steps that are left over at
    the very end stand at `first`.
    """
    clock, prunings, now = [], [], 0
    for step in range(steps):
        if now == first and len(prunings) < levels:
            prunings.append(step)
            now = back_to
        clock.append(now)
        now = min(now + 1, first)
    return clock, prunings


def rate_factor(schedule: str, at: int, steps: int) -> float:
    """Cosine from 1 to 0 over the steps, or a tenth of it from one half of them and again from three quarters."""
    if schedule == "cosine":
        return math.cos(math.pi / 2 * at / steps) ** 2
    return 0.1 ** sum(at >= round(Fraction(share) * steps) for share in ("1/2", "3/4"))


# --- a run as NumPy sees it ------------------------------------------------------------------------


def numpy(tree):
    return jax.tree.map(np.asarray, tree)


def kernels_of(state):
    """What the output sees, by the names of the masks."""
    return {f"{name}/kernel": np.asarray(state.params[name]["kernel"]) for name in LAYERS if name in state.params}


def batch_of(state):
    """(biases, normalised inputs, labels) of the step that a state stands at."""
    data = make_data()
    rows = np.asarray(batch_indices(jax.random.fold_in(state.key, ORDER), state.step, SIZES[0], 8))
    x = (np.asarray(data.x)[rows] - data.normalization.shift) * data.normalization.scale
    biases = {f"{name}/kernel": np.asarray(leaf["bias"]) for name, leaf in state.params.items()}
    return {name: biases[name] for name in kernels_of(state)}, x.reshape(len(x), -1), np.asarray(data.y)[rows]


def slopes_of(state):
    """The dense gradients of the kernels at a state, in NumPy."""
    return gradients(kernels_of(state), *batch_of(state))[1]


def masks_of(state):
    return numpy(state.topology.masks)


def total(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def check_grown(mask, survivors, score):
    """Assert that what grew scores at least as high as what did not, up to rounding."""
    assert not (survivors & ~mask).any()
    grown, not_grown = score[mask & ~survivors], score[~mask]
    assert not grown.size or not not_grown.size or grown.min() >= not_grown.max() - 1e-5 * score.max()
