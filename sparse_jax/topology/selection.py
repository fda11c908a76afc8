"""Exact selection with a traced count: which k of the eligible connections score highest."""

import jax
import jax.numpy as jnp


def _computed_once(bits: jax.Array) -> jax.Array:
    """The same uint32[...], as the result of a loop that never runs, which XLA cannot compute again where it is used.

    XLA may compute an array anew in every loop that it fuses it into, and round it differently there: a score is then
    below the threshold that was found from that very score, and a connection is missing. An `optimization_barrier`
    does not help on CPU, where it is removed before loops are fused.
    """
    never = -(bits.ravel()[0] >> 1).astype(jnp.int32)  # at most 0
    return jax.lax.fori_loop(0, never, lambda _, bits: ~bits, bits)


def ordered_bits(score: jax.Array) -> jax.Array:
    """uint32 keys in the order of the scores; −0 equals +0, unsigned integers are their own keys.

    A NaN sorts beyond the infinity of its sign, so that counts stay exact in a diverged run.
    """
    if score.dtype == jnp.uint32:
        return score
    bits = _computed_once(jax.lax.bitcast_convert_type(score.astype(jnp.float32), jnp.uint32))
    sign = jnp.uint32(1 << 31)
    bits = jnp.where(bits == sign, 0, bits)  # on the bits: CPUs compare denormal numbers equal to zero
    return jnp.where(bits >> 31, ~bits, bits | sign)


def _kth_largest(bits: jax.Array, k: jax.Array) -> jax.Array:
    """The largest t with #{bits ≥ t} ≥ k, one binary digit at a time from the highest (radix select)."""

    def digit(i, threshold):
        candidate = threshold | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        enough = jnp.sum(bits >= candidate, dtype=jnp.int32) >= k
        return jnp.where(enough, candidate, threshold)

    return jax.lax.fori_loop(0, 32, digit, jnp.uint32(0))


def _first(flags: jax.Array, k: jax.Array) -> jax.Array:
    """The first k set entries of the flat `flags`, by bisection on the index (no loop if all are wanted)."""
    n = flags.size
    index = jax.lax.iota(jnp.int32, n)

    def narrow(bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.sum(flags & (index < middle), dtype=jnp.int32) >= k
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    all_wanted = jnp.sum(flags, dtype=jnp.int32) <= k
    start = (jnp.where(all_wanted, n, 0), jnp.int32(n))
    _, end = jax.lax.while_loop(lambda bounds: bounds[0] < bounds[1], narrow, start)
    return flags & (index < end)


def top_k(score: jax.Array, k: jax.Array, eligible: jax.Array) -> jax.Array:
    """Exactly the k eligible entries of largest score; ties go to the lower flat index.

    Neither k nor the number of eligible entries is static, and nothing is sorted: 32 counting passes, plus
    log2(size) where a tie has to be broken.

    Args:
      score: float[...] or uint32[...], larger is selected first; ignored where not eligible.
      k: int32[], clipped to [0, number of eligible entries].
      eligible: bool[...], of the shape of `score`.

    Returns:
      bool[...], with min(k, number of eligible) entries set.
    """
    eligible_flat = eligible.ravel()
    k = jnp.clip(k, 0, jnp.sum(eligible_flat, dtype=jnp.int32))
    bits = jnp.where(eligible_flat, ordered_bits(score).ravel(), jnp.uint32(0))
    threshold = _kth_largest(bits, k)
    above = bits > threshold
    ties = (bits == threshold) & eligible_flat
    selected = above | _first(ties, k - jnp.sum(above, dtype=jnp.int32))
    return selected.reshape(score.shape)


def top_k_by_group(score: jax.Array, k: jax.Array, eligible: jax.Array) -> jax.Array:
    """`top_k` of every row by itself; score and eligible [groups, units], k int32[groups]."""
    if score.shape[0] == 1:  # as one row it needs no batched loops
        return top_k(score, k[0], eligible)
    return jax.vmap(top_k)(score, k, eligible)
