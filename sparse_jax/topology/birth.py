"""The weight that a new connection begins with; its optimiser slots always begin with zero."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.topology.masks import Masks, Weights


class Born(NamedTuple):
    """What the weights of a layer's new connections may be made of; kernel-shaped."""

    weight: jax.Array  # before the update, zero outside the old mask
    fresh: jax.Array | None  # another initialisation
    gradient: jax.Array | None  # of the loss, dense
    rate: jax.Array  # float32[], the learning rate


BIRTHS: dict[str, Callable[[Born], jax.Array]] = {
    "zero": lambda born: jnp.zeros_like(born.weight),  # SET's first reference, RigL
    "kept": lambda born: born.weight,  # RigL's code, where a link is dropped and drawn again at once
    "fresh": lambda born: born.fresh,  # later versions of SET
    "gradient": lambda born: -born.rate * born.gradient,  # a plain step of gradient descent ahead [ours]
}


def born_weights(birth: str, masks: Masks, survivors: Masks, by_layer: dict[str, Born]) -> Weights:
    """The weights after an update: those of the survivors, new ones in the rest of the masks, zero elsewhere."""
    new = {name: BIRTHS[birth](born).astype(born.weight.dtype) for name, born in by_layer.items()}
    both = {name: jnp.where(survivors[name], born.weight, new[name]) for name, born in by_layer.items()}
    return {name: jnp.where(masks[name], weight, 0) for name, weight in both.items()}


def fan_scale(mask: jax.Array, both_fans: bool) -> jax.Array:
    """What makes of a dense initialisation one that counts active connections, float32 of the mask's shape.

        s_ij = √(fan / fan_ij),   fan_ij = fan_in_j, or (fan_in_j + fan_out_i) / 2 with both fans

    fan is the number of connections that the initialiser counts in the dense kernel, fan_ij that of the active ones
    of output j and input i, at least 1; taps count for convolutions. With it every neuron of a sparse network begins
    with the variance of a dense one (Evci et al. 2022, arXiv:2010.03533, section 3.1, for fan_in).
    """
    taps = tuple(range(mask.ndim - 2))
    into = mask.sum((*taps, -2), keepdims=True, dtype=jnp.float32)
    fan = jnp.float32(mask.size / mask.shape[-1])
    if both_fans:
        into = (into + mask.sum((*taps, -1), keepdims=True, dtype=jnp.float32)) / 2
        fan = (fan + mask.size / mask.shape[-2]) / 2
    return jnp.broadcast_to(jnp.sqrt(fan / jnp.maximum(into, 1)), mask.shape)
