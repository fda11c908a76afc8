"""Drop and grow scores of one layer; a connection of larger score is kept, or grown, first."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Signals(NamedTuple):
    """What a criterion may look at; the arrays have the shape of the layer's kernel."""

    weight: jax.Array
    mask: jax.Array  # bool, before an update; where something is to grow, of its survivors
    explored: jax.Array  # bool, active now or at any time before
    gradient: jax.Array | None  # of the loss, dense, at the masked weights; None if the rule needs none
    momentum: jax.Array | None  # running mean of the dense gradient; None if the rule needs none
    positive: jax.Array | None  # bool, the sign that a connection may have (DeepR); None if it is free
    rates: Mapping[str, jax.Array]  # float32[] by name, settings of the criteria


class Criterion(NamedTuple):
    """A score and the optional signals that it looks at."""

    score: Callable[[jax.Array, Signals], jax.Array]  # (key, signals) -> float32[...] or uint32[...]
    needs: frozenset[str] = frozenset()


def _random(key: jax.Array, signals: Signals) -> jax.Array:
    """Uniform: 32 random bits each. A float32 draw has only 2^23 values, and ties favour low indices."""
    return jax.random.bits(key, signals.mask.shape, jnp.uint32)


def _unexplored(key: jax.Array, signals: Signals) -> jax.Array:
    """Uniform among the connections that were never active, then among the others (Liu et al. 2021)."""
    bits = _random(key, signals) >> 1
    return jnp.where(signals.explored, bits, bits | jnp.uint32(1 << 31))


def _magnitude(key: jax.Array, signals: Signals) -> jax.Array:
    """|w|."""
    return jnp.abs(signals.weight)


def _signed_weight(key: jax.Array, signals: Signals) -> jax.Array:
    """θ = s w, with s the sign that the connection may have (Bellec et al. 2018)."""
    return jnp.where(signals.positive, signals.weight, -signals.weight)


def _gradient(key: jax.Array, signals: Signals) -> jax.Array:
    """|∂L/∂w| at the masked weights (Evci et al. 2020)."""
    return jnp.abs(signals.gradient)


def _momentum(key: jax.Array, signals: Signals) -> jax.Array:
    """The absolute running mean of ∂L/∂w (Dettmers and Zettlemoyer 2019)."""
    return jnp.abs(signals.momentum)


def _saliency(key: jax.Array, signals: Signals) -> jax.Array:
    """|w ∂L/∂w|, the first-order change of the loss without the connection (Molchanov et al. 2017)."""
    return jnp.abs(signals.weight * signals.gradient)


def _magnitude_and_gradient(key: jax.Array, signals: Signals) -> jax.Array:
    """|w| + λ |∂L/∂w| (Yuan et al. 2021)."""
    return jnp.abs(signals.weight) + signals.rates["gradient_weight"] * jnp.abs(signals.gradient)


def _path3(key: jax.Array, signals: Signals) -> jax.Array:
    """The paths of length three from input u to output v, each hop over a hub weighing less.

        L3(u, v) = Σ_{j, i} a_uj a_ij a_iv / √(k_j k_i)

    j runs over the outputs and i over the inputs between them, k are their degrees and a the mask (Kovács et al. 2019,
    Nature Communications 10:1240, eq. 1). CHT's CH3-L3 also counts the links that leave the local community; ours
    does not. A convolution counts as the graph of its channels, each of its taps scoring as their pair does.
    """
    mask = signals.mask
    links = jnp.any(mask, axis=tuple(range(mask.ndim - 2))).astype(jnp.float32)
    of_input, of_output = (1 / jnp.sqrt(jnp.maximum(jnp.sum(links, axis, keepdims=True), 1)) for axis in (1, 0))
    matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    paths = matmul(matmul(links * of_output, links.T), links * of_input)
    return jnp.broadcast_to(paths.reshape((1,) * (mask.ndim - 2) + paths.shape), mask.shape)


def _sampled(criterion: Criterion) -> Criterion:
    """The score s drawn instead of ranked: log s / T + Gumbel noise.

    The k largest are then k draws without replacement with probabilities ∝ s^(1/T) (Vieira 2014; Kool et al. 2019,
    arXiv:1903.06059). At T = 0 only the order counts. CHTs mixes in uniform noise; ours is the exact draw.
    """

    def score(key, signals):
        of_score, of_noise = jax.random.split(key)
        positive = jnp.maximum(criterion.score(of_score, signals), jnp.float32(1e-30))
        return jnp.log(positive) + signals.rates["temperature"] * jax.random.gumbel(of_noise, signals.mask.shape)

    return Criterion(score, criterion.needs)


_GRADIENT, _MOMENTUM = frozenset({"gradient"}), frozenset({"momentum"})

MAGNITUDE = Criterion(_magnitude)
SIGNED_WEIGHT = Criterion(_signed_weight, frozenset({"positive"}))
RANDOM = Criterion(_random)

DROP: dict[str, Criterion] = {
    "magnitude": MAGNITUDE,
    "random": RANDOM,
    "saliency": Criterion(_saliency, _GRADIENT),
    "magnitude_and_gradient": Criterion(_magnitude_and_gradient, _GRADIENT),
    "sampled_magnitude": _sampled(MAGNITUDE),
}
GROW: dict[str, Criterion] = {
    "random": RANDOM,
    "unexplored": Criterion(_unexplored),
    "gradient": Criterion(_gradient, _GRADIENT),
    "momentum": Criterion(_momentum, _MOMENTUM),
    "path3": Criterion(_path3),
    "sampled_path3": _sampled(Criterion(_path3)),
}


def whole(signals: Signals) -> tuple[jax.Array, ...]:
    """One group: all active connections compete."""
    return (signals.mask,)


def by_sign(signals: Signals) -> tuple[jax.Array, ...]:
    """Two groups, w ≥ 0 and w < 0. New links, exactly zero, count as positive."""
    negative = signals.mask & (signals.weight < 0)
    return signals.mask & ~negative, negative
