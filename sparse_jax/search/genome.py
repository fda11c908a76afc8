"""Genomes of weight agnostic networks: which slots and connections a network has, in arrays of fixed shapes.

A network has inputs, then layers of hidden slots, then outputs (`places`). A hidden slot has a fixed layer and a fixed
activation function, so that a genome says only whether it is used. Connections lead from an earlier layer to any later
one: no genome has a cycle. There are neither a bias node nor biases [ours: the authors' code has a bias node], and the
outputs are linear.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.search.places import Places


class Genome(NamedTuple):
    """One network.

    Every used slot has an enabled connection to it and one from it; no unused slot has any, be it disabled.
    """

    used: jax.Array  # bool[hidden]
    present: jax.Array  # bool[sources, targets], within Places.forward
    enabled: jax.Array  # bool[sources, targets], within `present`


def connections(genome: Genome) -> jax.Array:
    """int32[], the connections that count: the enabled ones."""
    return jnp.sum(genome.enabled, dtype=jnp.int32)


def initial(key: jax.Array, places: Places, share: jax.Array) -> Genome:
    """A network without hidden nodes.

    Every connection from an input to an output is present, and enabled with probability `share`, as in the authors'
    code.

    Args:
      key: a PRNG key.
      places: of the genome.
      share: float32[], in [0, 1].
    """
    direct = (places.source_layers == 0)[:, None] & (places.target_layers > places.layers)
    enabled = direct & jax.random.bernoulli(key, share, direct.shape)
    return Genome(jnp.zeros(places.hidden, bool), jnp.asarray(direct), enabled)
