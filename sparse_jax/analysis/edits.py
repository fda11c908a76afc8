"""What else is done to the weights of a trained network, to see what of them matters: magnitude, sign, or place."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Given(NamedTuple):
    """What an edit may use, of one layer; what a weight is off the mask is ignored."""

    weight: jax.Array  # float32[...]
    mask: jax.Array  # bool[...]
    shuffled: jax.Array  # float32[...], the weights w_π, π a uniform permutation of the connections
    fresh: jax.Array  # float32[...], another initialisation


def unchanged(given: Given) -> jax.Array:
    """w."""
    return given.weight


def magnitudes_shuffled(given: Given) -> jax.Array:
    """sign(w) |w_π|; zero counts as positive."""
    return _sign(given.weight) * jnp.abs(given.shuffled)


def signs_shuffled(given: Given) -> jax.Array:
    """sign(w_π) |w|."""
    return _sign(given.shuffled) * jnp.abs(given.weight)


def weights_shuffled(given: Given) -> jax.Array:
    """w_π."""
    return given.shuffled


def mean_magnitude(given: Given) -> jax.Array:
    """sign(w) E|w|, the mean over the connections of the layer."""
    total = jnp.sum(jnp.where(given.mask, jnp.abs(given.weight), 0))
    return _sign(given.weight) * total / jnp.maximum(jnp.sum(given.mask, dtype=jnp.int32), 1)


def reinitialised(given: Given) -> jax.Array:
    """Weights as before training, drawn anew."""
    return given.fresh


EDITS: dict[str, Callable[[Given], jax.Array]] = {
    "unchanged": unchanged,
    "magnitudes_shuffled": magnitudes_shuffled,
    "signs_shuffled": signs_shuffled,
    "weights_shuffled": weights_shuffled,
    "mean_magnitude": mean_magnitude,
    "reinitialised": reinitialised,
}


def _sign(weight: jax.Array) -> jax.Array:
    return jnp.where(weight < 0, -1.0, 1.0)
