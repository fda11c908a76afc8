"""Random bipartite graphs between the inputs and the outputs of one layer.

A kernel is bool[..., n_in, n_out]. An output has ∏ shape[:-1] cells to connect to, one for each tap and input channel:
in a dense layer its inputs. Counts may be traced; shapes are static. Whatever is ranked has 32 random bits: float32
draws have only 2^23 values, and ties favour low indices.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.topology.selection import top_k

Shape = tuple[int, ...]


def _bits(key: jax.Array, shape: Shape) -> jax.Array:
    return jax.random.bits(key, shape, jnp.uint32)


def _chance(key: jax.Array, probability: jax.Array, shape: Shape) -> jax.Array:
    """bool[shape], each True by itself with the given probability (to a relative 2^-24), always if it is 1."""
    probability = jnp.asarray(probability, jnp.float32)
    return (probability >= 1) | (_bits(key, shape) < (probability * 2.0**32).astype(jnp.uint32))


def _top_k_by_output(score: jax.Array, k: jax.Array, eligible: jax.Array) -> jax.Array:
    """`top_k` in each column: [cells, n_out], int32[n_out], [cells, n_out] to bool[cells, n_out]."""
    return jax.vmap(top_k, in_axes=(1, 0, 1), out_axes=1)(score, k, eligible)


def uniform(key: jax.Array, shape: Shape, count: jax.Array) -> jax.Array:
    """A uniformly random set of `count` connections: the Erdős-Rényi graph G(n, m).

    Args:
      key: a PRNG key.
      shape: the kernel's.
      count: int32[], in [0, size].

    Returns:
      bool[shape].
    """
    return top_k(_bits(key, shape), count, jnp.ones(shape, bool))


def bernoulli(key: jax.Array, shape: Shape, count: jax.Array) -> jax.Array:
    """Each connection by itself with probability count / size: the Erdős-Rényi graph G(n, p).

    The start of SET (Mocanu et al. 2018, arXiv:1707.04780, eq. 3). `count` connections are only expected.
    """
    return _chance(key, count / math.prod(shape), shape)


def fan_in(key: jax.Array, shape: Shape, count: jax.Array) -> jax.Array:
    """⌊count / n_out⌋ connections for every output, to a uniformly random set of its cells.

    So the count is rounded down to a multiple of n_out; below n_out the layer is empty. The start of SRigL
    (Lasby et al. 2024, arXiv:2305.02299).
    """
    columns = (math.prod(shape[:-1]), shape[-1])
    k = jnp.full(shape[-1], count // shape[-1], jnp.int32)
    return _top_k_by_output(_bits(key, columns), k, jnp.ones(columns, bool)).reshape(shape)


def fan_out(key: jax.Array, shape: Shape, count: jax.Array) -> jax.Array:
    """⌊count / n_in⌋ connections for every input channel, over all taps and outputs: `fan_in` of the transpose."""
    *taps, n_in, n_out = shape
    return fan_in(key, (*taps, n_out, n_in), count).swapaxes(-1, -2)


def _staircase(rows: int, columns: int, count: jax.Array) -> jax.Array:
    """bool[rows, columns] with `count` ones, whose row sums differ by at most one, and whose column sums do.

    Number the ones e = 0 … count − 1 and put e into column e mod `columns`: each column has ⌊count / columns⌋ of them,
    or one more. Give consecutive ones to each row, ⌊count / rows⌋ or one more: they are no more than `columns`, hence
    in distinct columns. With f_i the first of row i, (i, j) is set iff (j − f_i) mod columns < f_{i+1} − f_i.
    """
    row = jnp.arange(rows + 1)
    first = count // rows * row + jnp.minimum(row, count % rows)
    return (jnp.arange(columns)[None] - first[:-1, None]) % columns < jnp.diff(first)[:, None]


def _trade(key: jax.Array, mask: jax.Array) -> jax.Array:
    """Pair the rows at random (one of an odd number rests), and deal anew, at random, what only one of a pair has.

    A row gets as many ones as it had, and in every column a one stays or moves to the other row: sums are kept.
    """
    row_key, deal_key = jax.random.split(key)
    mask = jax.random.permutation(row_key, mask)
    pairs = mask.shape[0] // 2
    a, b, resting = jnp.split(mask, (pairs, 2 * pairs))
    of_one, of_both = a ^ b, a & b
    to_a = jax.vmap(top_k)(_bits(deal_key, a.shape), jnp.sum(a & ~b, axis=1, dtype=jnp.int32), of_one)
    return jnp.concatenate([of_both | to_a, of_both | (of_one & ~to_a), resting])


def expander(key: jax.Array, shape: Shape, count: jax.Array) -> jax.Array:
    """A random graph whose in-degrees differ by at most one, and whose out-degrees do.

    In-degrees are those of the outputs, out-degrees those of their cells: n_in of them in a dense layer. It starts
    from `_staircase`, where the degrees are so, shuffles its columns and trades 2 ⌈log2 size⌉ times: a trade permutes
    the degrees of rows and keeps those of columns. The staircase alone, however permuted, is a ring and expands badly;
    random regular graphs are expanders with high probability.

    The trades are the global curveball chain (Strona et al. 2014, doi:10.1038/ncomms5114; Carstens et al. 2018,
    arXiv:1804.08487). In its limit all graphs of these degrees are as likely: a trade is as likely as its reverse, may
    change nothing, and may exchange any two ones that cross, which is enough to reach every graph (Ryser 1957,
    doi:10.4153/CJM-1957-044-3). The number of rounds is ours: a one changes rows in about every second.

    X-Nets (Prabhu et al. 2018, arXiv:1711.08757) connect every output to D random inputs, that is `fan_in`, and take
    the kernels of a convolution whole; here both sides are balanced, and every tap is a cell.

    Args:
      key: a PRNG key.
      shape: the kernel's.
      count: int32[], in [0, size]; exact.

    Returns:
      bool[shape].
    """
    cells, outputs = math.prod(shape[:-1]), shape[-1]
    rounds = 2 * math.ceil(math.log2(max(2, cells * outputs)))
    column_key, key = jax.random.split(key)
    start = jax.random.permutation(column_key, _staircase(cells, outputs, count), axis=1)
    trade = lambda i, mask: _trade(jax.random.fold_in(key, i), mask)
    return jax.lax.fori_loop(0, rounds, trade, start).reshape(shape)


def _nearness(cells: int, outputs: int) -> jax.Array:
    """int32[cells, outputs]: 0 for the cell of the ring at which an output stands, then 1, 2, … in turn on both sides.

    Output j stands at cell ⌊j cells / outputs⌋. At a distance of d steps forward, or cells − d backward, the rank is
    min(2d − 1, 2(cells − d)), for d = 0 … cells − 1 a permutation of 0 … cells − 1 once −1 is read as 0.
    """
    stands = jnp.asarray(np.arange(outputs) * cells // outputs, jnp.int32)
    forward = (jnp.arange(cells)[:, None] - stands[None]) % cells
    return jnp.maximum(jnp.minimum(2 * forward - 1, 2 * (cells - forward)), 0)


def small_world(key: jax.Array, shape: Shape, count: jax.Array, rewiring: jax.Array) -> jax.Array:
    """A ring lattice with a share of its links rewired (Watts and Strogatz 1998, doi:10.1038/30918), bipartite.

    The lattice connects output j to the k_j cells nearest to ⌊j cells / n_out⌋ on the ring of cells, on which the taps
    of a channel lie together; k_j = ⌊count / n_out⌋, or one more for the first count mod n_out outputs. Then each link
    is taken away with probability β, and each output gets as many links back as it lost, to a uniformly random set of
    the cells that it is not connected to now. β = 0 is the lattice; β = 1 is random with these in-degrees.

    Departures: all links are rewired at once, so that a link may come back to where it was, as in the code of the
    bipartite small worlds of Zhang et al. 2025 (arXiv:2501.19107); theirs takes half of the lattice from either side
    and draws new links anywhere in the layer, so that in-degrees vary.

    Args:
      key: a PRNG key.
      shape: the kernel's.
      count: int32[], in [0, size]; exact.
      rewiring: float32[], β in [0, 1]; may be traced.

    Returns:
      bool[shape].
    """
    *taps, n_in, n_out = shape
    cells = math.prod(shape[:-1])
    k = count // n_out + (jnp.arange(n_out) < count % n_out)
    lattice = _nearness(cells, n_out) < k[None]
    away_key, back_key = jax.random.split(key)
    kept = lattice & ~_chance(away_key, rewiring, lattice.shape)
    lost = k - jnp.sum(kept, axis=0, dtype=jnp.int32)
    mask = kept | _top_k_by_output(_bits(back_key, kept.shape), lost, ~kept)
    by_channel = mask.reshape(n_in, math.prod(taps), n_out)
    return by_channel.swapaxes(0, 1).reshape(shape)


def hub_weights(size: int, exponent: jax.Array) -> jax.Array:
    """float32[size], w_i = (i + 1)^(−1/(γ − 1)): degrees in proportion to w have the density d^−γ."""
    return jnp.arange(1, size + 1, dtype=jnp.float32) ** (-1 / (exponent - 1))


def sample(key: jax.Array, weight: jax.Array, count: jax.Array) -> jax.Array:
    """`count` entries drawn one after the other without replacement, each with probability ∝ weight of those left.

    The k smallest of E_i / w_i, with E_i standard exponential; equally the k largest of log w_i + G_i with Gumbel noise
    G_i = −log E_i (Efraimidis and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003). E = −log(1 − U) is finest where
    it is small, and the small ones are ranked.

    Args:
      key: a PRNG key.
      weight: float32[...], positive.
      count: int32[], in [0, size].

    Returns:
      bool[...], of the shape of `weight`.
    """
    u = (_bits(key, weight.shape).astype(jnp.float32) + 0.5) * 2.0**-32
    return top_k(jnp.log1p(-u) / weight, count, jnp.ones(weight.shape, bool))


def scale_free(key: jax.Array, shape: Shape, count: jax.Array, exponent: jax.Array) -> jax.Array:
    """Degrees with a power law of exponent γ on both sides: few hubs, many units with few connections.

        P(next connection is (i, j)) ∝ u_i v_j,   u, v = (rank + 1)^(−1/(γ − 1)), ranks random

    over the connections that are not there yet: the static model of Goh et al. 2001, bipartite
    (doi:10.1103/PhysRevLett.87.278701). Inputs and outputs have ranks of their own; all taps of an input channel share
    one. No degree passes the other side's number of units, so that hubs are cut off at high density. Zhang et al. 2025
    (arXiv:2501.19107) grow theirs by preferential attachment instead, whose γ is 3.

    Args:
      key: a PRNG key.
      shape: the kernel's.
      count: int32[], in [0, size]; exact.
      exponent: float32[], γ > 2; may be traced. Without bound it becomes `uniform`.

    Returns:
      bool[shape].
    """
    in_key, out_key, key = jax.random.split(key, 3)
    u = jax.random.permutation(in_key, hub_weights(shape[-2], exponent))
    v = jax.random.permutation(out_key, hub_weights(shape[-1], exponent))
    return sample(key, jnp.broadcast_to(u[:, None] * v[None], shape), count)
