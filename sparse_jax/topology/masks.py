"""Masks and the weights they belong to: flat dicts of the maskable leaves of a parameter tree.

A name is the leaf's path, "dense_0/kernel". Leaves without a mask (biases, normalisation, the parameters of
activation functions) do not appear.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp

Weights = dict[str, jax.Array]
Masks = dict[str, jax.Array]
Counts = dict[str, jax.Array]


def name_of(path: tuple[Any, ...]) -> str:
    """The name of a leaf from its `jax.tree_util` key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def select(params: Any, names: Collection[str]) -> Weights:
    """The leaves of `params` called `names`, as a flat dict."""
    leaves = {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    return {name: leaves[name] for name in names}


def put(params: Any, weights: Weights) -> Any:
    """`params` with the leaves that `weights` names replaced."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: weights.get(name_of(path), leaf), params)


def mask_tree(params: Any, masks: Masks) -> Any:
    """A tree of the structure of `params`: the mask of each masked leaf, True for every other leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: masks.get(name_of(path), True), params)


def apply_masks(params: Any, masks: Masks) -> Any:
    """`params` with exact zeros outside the masks; `where`, so that NaN and infinity go too."""
    return jax.tree.map(lambda leaf, mask: jnp.where(mask, leaf, 0), params, mask_tree(params, masks))


def connections(masks: Masks) -> jax.Array:
    """int32[], the active connections of all layers."""
    return sum((jnp.sum(mask, dtype=jnp.int32) for mask in masks.values()), jnp.int32(0))
