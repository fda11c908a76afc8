"""Data order as a pure function of (key, step): there is no iterator to checkpoint."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparse_jax.data.augmentation import Levels
from sparse_jax.data.normalization import Normalization
from sparse_jax.errors import UserError

_ROUNDS = 12  # by χ² over (position, value) and over pairs, 6 fail at n = 10 and 8 at n = 5


class Block(NamedTuple):
    """The batches of some steps of one run, one after the other."""

    x: jax.Array  # [steps · batch_size, ...]
    y: jax.Array  # int32[steps · batch_size]
    first: jax.Array  # int32[], the step of the first batch


class Data(NamedTuple):
    """The examples of a study on the device, raw, in the order of `splits.Splits`.

    Where the training part is too large for that, x and y begin with the validation part, and `block` has what the
    steps at hand train on.
    """

    x: jax.Array  # uint8 or float32[examples, ...]
    y: jax.Array  # int32[examples]
    normalization: Normalization
    levels: Levels
    block: Block | None = None


def permute(key: jax.Array, index: jax.Array, n: int) -> jax.Array:
    """Where a pseudo-random permutation of range(n) takes each index, one by one, without a sort.

    With b = ⌈√n⌉ and a = ⌈n / b⌉ an index is a pair (i, j), index = i·b + j, and the rounds of an
    alternating Feistel network, each a bijection of the a·b pairs, are

        i ← (i + f(k, j)) mod a,    j ← (j + f(k′, i)) mod b

    The fewer than b values in n..a·b−1 go through again until they fall below n (cycle walking:
    Black & Rogaway 2002, "Ciphers with arbitrary finite domains"). Mixed radices rather than bits keep
    a·b near n, so that hardly any index walks.

    Args:
      key: typed JAX key, the permutation's name.
      index: int32[...], taken modulo n.
      n: static, 1..2³¹−1.

    Returns:
      int32[...] of index's shape; a bijection of range(n).
    """
    right = math.isqrt(n - 1) + 1
    left = -(-n // right)
    round_keys = jax.random.bits(key, (_ROUNDS // 2, 2), jnp.uint32)

    def network(value):
        i, j = value // right, value % right
        for to_left, to_right in round_keys:
            i = (i + mix(j ^ to_left) % left) % left
            j = (j + mix(i ^ to_right) % right) % right
        return i * right + j

    def walk(value):
        return jnp.where(value < n, value, network(value))

    start = network((index % n).astype(jnp.uint32))
    return lax.while_loop(lambda value: jnp.any(value >= n), walk, start).astype(jnp.int32)


def batch_indices(key: jax.Array, step: jax.Array, n: int, batch_size: int) -> jax.Array:
    """int32[batch_size] of range(n): the examples of optimiser step `step`, int32[].

    Every epoch has its own permutation and ⌊n / batch_size⌋ batches without a repeated example; what
    does not fill a batch, different examples each epoch, is left out.

    Raises:
      UserError: batch_size is outside 1..n.
    """
    if not 1 <= batch_size <= n:
        raise UserError(f"batch_size {batch_size} is outside 1..{n}, the training examples")
    epoch, position = jnp.divmod(step, n // batch_size)
    return permute(jax.random.fold_in(key, epoch), position * batch_size + jnp.arange(batch_size), n)


def batch_at(data: Data, key: jax.Array, step: jax.Array, *, n: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """The raw batch (x[batch_size, ...], y[batch_size]) of `step` from the first n examples.

    Pure: a run that resumes at `step` sees what an uninterrupted run sees, bit for bit; the batches of a block are
    the same ones.
    """
    if data.block is not None:
        at = (step - data.block.first) * batch_size
        return tuple(lax.dynamic_slice_in_dim(rows, at, batch_size) for rows in (data.block.x, data.block.y))
    index = batch_indices(key, step, n, batch_size)
    return data.x[index], data.y[index]


def mix(value: jax.Array) -> jax.Array:
    """A bijection of uint32 with full avalanche: lowbias32 of Wellons' hash-prospector."""
    value = (value ^ (value >> 16)) * np.uint32(0x7FEB352D)
    value = (value ^ (value >> 15)) * np.uint32(0x846CA68B)
    return value ^ (value >> 16)
