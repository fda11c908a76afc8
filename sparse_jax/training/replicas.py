"""Devices that share the batches of a run: each sees its part of a batch, and all have one network.

Gradients are averaged before anything looks at them, and every draw has one key, so replicas make the same decisions.
That they did is checked by a hash of their networks.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sparse_jax.data.batches import mix

BATCH = "batch"  # the axis of a mesh along which devices share a batch


def part_of(rows: jax.Array, devices: int) -> jax.Array:
    """The rows of a batch that this device sees."""
    size = rows.shape[0] // devices
    return lax.dynamic_slice_in_dim(rows, lax.axis_index(BATCH) * size, size)


def averaged(tree: Any) -> Any:
    """The mean over the devices: of gradients of means, that of the whole batch."""
    return lax.pmean(tree, BATCH)


def whole(parts: jax.Array) -> jax.Array:
    """[n, batch] of the parts [n, batch / devices] of all devices."""
    return lax.all_gather(parts, BATCH, axis=1, tiled=True)


def _bits(leaf: jax.Array) -> jax.Array:
    """uint32 of a leaf's shape, from which its values of up to 32 bits can be told."""
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        width = jnp.uint32 if leaf.dtype.itemsize == 4 else jnp.uint16
        return lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
    return leaf.astype(jnp.uint32)


def fingerprint(tree: Any) -> jax.Array:
    """uint32[], a hash of all bits of a tree and of where they stand.

        Σ over leaves l and places i of  mix(bits ⊕ mix(i + mix(l)))   modulo 2³²
    """
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        place = mix(lax.iota(jnp.uint32, leaf.size) + mix(jnp.uint32(number)))
        total += jnp.sum(mix(_bits(leaf).ravel() ^ place), dtype=jnp.uint32)
    return total


@partial(jax.jit, static_argnames=("mesh", "run"))
def fingerprints(tree: Any, mesh: jax.sharding.Mesh, run: str) -> jax.Array:
    """uint32[runs, devices]: the hash that each of the devices that share a run has of it.

    Args:
      tree: with a leading axis of runs, sharded along the axis `run` of the mesh.
      mesh: with the axes `run` and BATCH.
      run: name of the axis of runs.
    """

    def local(tree):
        return jax.vmap(fingerprint)(tree)[:, None]

    return jax.shard_map(local, mesh=mesh, in_specs=jax.P(run), out_specs=jax.P(run, BATCH), check_vma=False)(tree)
