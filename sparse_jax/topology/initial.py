"""First masks of a network: drawn at random, from scores, or from the correlations of its inputs."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.topology.allocation import Shapes
from sparse_jax.topology.masks import Counts, Masks
from sparse_jax.topology.random_graphs import bernoulli, expander, fan_in, fan_out, scale_free, small_world, uniform
from sparse_jax.topology.selection import ordered_bits, top_k


class InitialSettings(NamedTuple):
    """The dynamic settings of the families; each looks at its own."""

    rewiring: jax.Array  # float32[], in [0, 1], of small_world
    exponent: jax.Array  # float32[], > 2, of scale_free


Draw = Callable[[jax.Array, tuple[int, ...], jax.Array], jax.Array]  # (key, shape, count) -> bool[shape]
Family = Callable[[jax.Array, Shapes, Counts, InitialSettings], Masks]


def _each_layer(draw: Draw, key: jax.Array, shapes: Shapes, counts: Counts) -> Masks:
    keys = jax.random.split(key, len(shapes))
    return {
        name: draw(layer_key, shapes[name], counts[name]) for layer_key, name in zip(keys, sorted(shapes), strict=True)
    }


def random_masks(key: jax.Array, shapes: Shapes, counts: Counts) -> Masks:
    """Uniformly random masks with exact counts.

    SET's reference draws each link independently, so that its counts vary; ours are exact.

    Args:
      key: a PRNG key.
      shapes: layer name to kernel shape.
      counts: layer name to int32[], may be traced.

    Returns:
      layer name to bool[shape].
    """
    return _each_layer(uniform, key, shapes, counts)


def _family(make: Callable[[InitialSettings], Draw]) -> Family:
    return lambda key, shapes, counts, settings: _each_layer(make(settings), key, shapes, counts)


INITIAL: dict[str, Family] = {
    "random": _family(lambda settings: uniform),
    "bernoulli": _family(lambda settings: bernoulli),
    "fan_in": _family(lambda settings: fan_in),
    "fan_out": _family(lambda settings: fan_out),
    "expander": _family(lambda settings: expander),
    "small_world": _family(lambda settings: partial(small_world, rewiring=settings.rewiring)),
    "scale_free": _family(lambda settings: partial(scale_free, exponent=settings.exponent)),
}


def from_scores(scores: dict[str, jax.Array], counts: Counts) -> Masks:
    """The counts[name] connections of largest score in every layer; ties go to the lower flat index."""
    return {name: top_k(score, counts[name], jnp.ones(score.shape, bool)) for name, score in scores.items()}


def from_scores_globally(scores: dict[str, jax.Array], total: jax.Array) -> Masks:
    """The `total` connections of largest score in the whole network.

    Ties go to the layer whose name sorts first, then to the lower flat index. A layer may be left with none.

    Args:
      scores: layer name to float32[...], comparable between layers.
      total: int32[], may be traced; clipped to the number of connections.

    Returns:
      layer name to bool[...].
    """
    names = sorted(scores)
    flat = jnp.concatenate([scores[name].ravel() for name in names])
    ends = np.cumsum([scores[name].size for name in names])
    parts = jnp.split(top_k(flat, total, jnp.ones(flat.shape, bool)), ends[:-1])
    return {name: part.reshape(scores[name].shape) for name, part in zip(names, parts, strict=True)}


def _top_k_ties_at_random(key: jax.Array, score: jax.Array, k: jax.Array) -> jax.Array:
    """`top_k` of all entries, except that a uniformly random set of those that tie for the last places gets them."""
    bits, everything = ordered_bits(score), jnp.ones(score.shape, bool)
    last = jnp.min(jnp.where(top_k(bits, k, everything), bits, jnp.uint32(2**32 - 1)))
    above = bits > last
    left = k - jnp.sum(above, dtype=jnp.int32)
    return above | top_k(jax.random.bits(key, score.shape, jnp.uint32), left, bits == last)


def _correlations(x: jax.Array, features: jax.Array) -> jax.Array:
    """float32[d, m]: |Pearson correlation| of all features of x, float[n, d], with features[0 … m − 1].

    A constant feature correlates with nothing, not even itself. It is told by its range: its mean is rounded, and
    what is left would correlate perfectly with any other such remainder.
    """
    scale = jnp.where(x.max(0) > x.min(0), x.std(0), jnp.inf)
    z = (x - x.mean(0)[None]) / scale[None]
    return jnp.abs(jnp.matmul(z.T, z[:, features], precision=jax.lax.Precision.HIGHEST)) / x.shape[0]


def correlation_masks(key: jax.Array, shapes: Shapes, counts: Counts, first: str, x: jax.Array) -> Masks:
    """First layer from the correlations of the training data, the others uniformly random.

        score(i, j) = |ρ(feature i, feature of unit j)|,   mask = top-n of the score, ties at random

    after CSTI, the correlated sparse topological initialisation of Zhang et al. 2024 (Epitopological learning and
    Cannistraci-Hebb network shape intelligence). Each unit has one feature, and each feature ⌊units / features⌋
    units or one more, both at random; theirs gives unit j feature j mod features and needs a layer once or twice as
    wide as the input. Further departures: here a unit is linked to its own feature first (ρ = 1), which their code
    leaves out; constant features have ρ = 0 and theirs are taken out of the network; and they use the same matrix for
    every layer of that width.

    Args:
      key: a PRNG key.
      shapes: layer name to kernel shape.
      counts: layer name to int32[], may be traced; exact.
      first: the layer that reads x, of shape [features, units].
      x: float[n, features], training examples, not test.

    Returns:
      layer name to bool[shape].

    Raises:
      ValueError: if `first` is no dense layer that reads x.
    """
    if x.ndim != 2 or len(shapes[first]) != 2 or shapes[first][0] != x.shape[1]:
        raise ValueError(f"correlations need a dense first layer and its inputs: {shapes[first]} and {x.shape}")
    features, units = shapes[first]
    other_key, feature_key, unit_key, tie_key = jax.random.split(key, 4)
    dealt = jax.random.permutation(feature_key, features)[jnp.arange(units) % features]
    score = _correlations(x, jax.random.permutation(unit_key, dealt))
    others = random_masks(other_key, {name: shapes[name] for name in shapes if name != first}, counts)
    return others | {first: _top_k_ties_at_random(tie_key, score, counts[first])}
