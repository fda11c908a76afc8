"""First masks of a network."""

import jax
import jax.numpy as jnp

from sparse_jax.topology.allocation import Shapes
from sparse_jax.topology.masks import Counts, Masks
from sparse_jax.topology.selection import top_k


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
    keys = jax.random.split(key, len(shapes))
    return {
        name: top_k(
            jax.random.bits(layer_key, shapes[name], jnp.uint32), counts[name], jnp.ones(shapes[name], bool)
        )
        for layer_key, name in zip(keys, sorted(shapes), strict=True)
    }
