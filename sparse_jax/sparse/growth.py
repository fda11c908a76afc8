"""Where connections grow, without the dense mask: positions that have none, at random or by their gradient.

A position is a pair (input, output); lists of them are sorted, and padded at the end with (I, O).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.sparse.links import Links
from sparse_jax.topology.selection import top_k, top_k_by_group

LEAST_BLOCK = 2**20  # gradients of absent connections at once; more, where there are more connections than that

FLAT = 2**31 - 1  # positions of a layer up to which one integer tells them apart
MOST_POSITIONS = 4  # a connection, up to which all of a layer are looked at


class Positions(NamedTuple):
    """Places of a layer of I inputs and O outputs, sorted by input, then by output; (I, O) pads."""

    inputs: jax.Array  # int32[n]
    outputs: jax.Array  # int32[n]


Shape = tuple[int, int]


def crowded(shape: Shape, connections: int) -> bool:
    """Whether a layer has so few positions for its connections that all may be ranked in the memory that these take."""
    return math.prod(shape) <= MOST_POSITIONS * connections


def sort_positions(at: Positions, shape: Shape) -> Positions:
    """The same, sorted; by one integer where it holds a position."""
    if math.prod(shape) >= FLAT:
        return Positions(*jax.lax.sort(tuple(at), num_keys=2))
    flat = jnp.sort(jnp.where(at.inputs < shape[0], at.inputs * shape[1] + at.outputs, FLAT))
    pads = flat == FLAT
    inputs = jnp.where(pads, shape[0], flat // shape[1])
    return Positions(inputs, jnp.where(pads, shape[1], flat % shape[1]))


def find(links: Links, at: Positions) -> tuple[jax.Array, jax.Array]:
    """(int32[n], bool[n]): how many connections come before each position, which is its slot if it has one; whether.

    A binary search among the connections of its input.
    """
    inputs, outputs = links.input_starts.shape[0] - 1, links.output_starts.shape[0] - 1
    low = links.input_starts[at.inputs]
    end = links.input_starts[jnp.minimum(at.inputs + 1, inputs)]

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        right = (low < high) & (links.outputs[jnp.minimum(middle, links.capacity - 1)] < at.outputs)
        return jnp.where(right, middle + 1, low), jnp.where(right, high, middle)

    low, _ = jax.lax.fori_loop(0, outputs.bit_length(), halve, (low, end))
    there = (low < end) & (links.outputs[jnp.minimum(low, links.capacity - 1)] == at.outputs)
    return low, there


def uniform_below(key: jax.Array, many: int, span: int) -> jax.Array:
    """int32[many], exactly uniform over 0 .. span − 1.

    Of the 2^32 values of 32 random bits those beyond the last multiple of the span are drawn again; the rest of a
    division would favour small numbers, as that of `jax.random.randint` does for spans above 2^16.
    """
    last = jnp.uint32(2**32 - 2**32 % span - 1)  # that is kept

    def again(state):
        drawn, tries = state
        bits = jax.random.bits(jax.random.fold_in(key, tries), (many,), jnp.uint32)
        return jnp.where((tries == 0) | (drawn > last), bits, drawn), tries + 1

    def wanting(state):
        drawn, tries = state
        return (tries == 0) | jnp.any(drawn > last)

    drawn, _ = jax.lax.while_loop(wanting, again, (jnp.zeros(many, jnp.uint32), jnp.int32(0)))
    return (drawn % jnp.uint32(span)).astype(jnp.int32)


def draw_absent(
    key: jax.Array, links: Links, excluded: jax.Array, count: jax.Array, most: int, shape: Shape,
    outputs: jax.Array | None,
) -> Positions:
    """A uniformly random set of `count` positions that are not excluded.

    All are drawn at once; those that are excluded or twice there are drawn again, until none is. What is drawn treats
    all positions that are left alike, so that every set is as likely as any other.

    Args:
      key: a PRNG key.
      links: the connections of the layer.
      excluded: bool[capacity], which of them may not be drawn.
      count: int32[], at most `most` and the positions that are left.
      most: static.
      shape: (I, O) of the layer.
      outputs: int32[most], sorted, the output of each position, where inputs alone are to be drawn; or None.

    Returns:
      int32[most] each, `count` of them used.
    """

    def fresh(key, at, wanted):
        of_input, of_output = jax.random.split(key)
        inputs = jnp.where(wanted, uniform_below(of_input, most, shape[0]), at.inputs)
        if outputs is not None:
            return Positions(inputs, at.outputs)
        return Positions(inputs, jnp.where(wanted, uniform_below(of_output, most, shape[1]), at.outputs))

    def tried(key, at, wanted):
        at = sort_positions(fresh(key, at, wanted), shape)
        slot, there = find(links, at)
        taken = there & excluded[jnp.minimum(slot, links.capacity - 1)]
        same = (at.inputs[1:] == at.inputs[:-1]) & (at.outputs[1:] == at.outputs[:-1])
        twice = jnp.concatenate([jnp.zeros(1, bool), same])
        return at, (taken | twice) & (at.inputs < shape[0])

    def again(state):
        at, wrong, tries = state
        return *tried(jax.random.fold_in(key, tries), at, wrong), tries + 1

    wanted = jnp.arange(most, dtype=jnp.int32) < count
    pad = jnp.full(most, shape[1], jnp.int32)
    begin = Positions(jnp.full(most, shape[0], jnp.int32), pad if outputs is None else jnp.where(wanted, outputs, pad))
    first = *tried(jax.random.fold_in(key, 0), begin, wanted), jnp.int32(1)
    return jax.lax.while_loop(lambda state: jnp.any(state[1]), again, first)[0]


class Sensitivity(NamedTuple):
    """What the gradients of all connections of a layer, present or absent, are made of: ∂L/∂w_ij = x_i · d_j."""

    inputs: jax.Array  # float32[I, B], x
    outputs: jax.Array  # float32[O, B], d = ∂L/∂y


# (the first of some rows, all of them int32[rows]) -> scores[rows, columns]; rows are inputs, or outputs
Scores = Callable[[jax.Array, jax.Array], jax.Array]


def gradient_scores(rows: jax.Array, columns: jax.Array) -> Scores:
    """|∂L/∂w| of rows × columns: x and d, or d and x."""

    def scores(first, row):
        return jnp.abs(jnp.matmul(rows[row], columns.T, precision=jax.lax.Precision.HIGHEST))

    return scores


def random_scores(key: jax.Array, columns: int) -> Scores:
    """32 random bits each."""
    return lambda first, row: jax.random.bits(jax.random.fold_in(key, first), (row.size, columns), jnp.uint32)


def _compact(mask: jax.Array, most: int) -> jax.Array:
    """int32[most]: the indices of the set entries of the flat `mask` in order, then its size."""
    rank = jnp.where(mask, jnp.cumsum(mask, dtype=jnp.int32) - 1, most)
    index = jnp.arange(mask.size, dtype=jnp.int32)
    return jnp.full(most, mask.size, jnp.int32).at[rank].set(index, mode="drop")


def _picked(at: Positions, index: jax.Array, shape: Shape) -> Positions:
    """The positions of these indices; of the index behind the last one (I, O)."""
    return Positions(*(jnp.append(side, jnp.int32(pad))[index] for side, pad in zip(at, shape, strict=True)))


def _block(scores: Scores, first: jax.Array, rows: int, shape: Shape, taken: Positions) -> tuple[jax.Array, jax.Array]:
    """Scores[rows, columns] from a first row on, and bool of that shape: rows that there are, less what is taken."""
    row = first + jnp.arange(rows, dtype=jnp.int32)
    found = scores(first, jnp.minimum(row, shape[0] - 1))
    within = (taken.inputs >= first) & (taken.inputs < first + rows)
    at = jnp.where(within, (taken.inputs - first) * shape[1] + taken.outputs, rows * shape[1])
    free = jnp.broadcast_to((row < shape[0])[:, None], found.shape).ravel().at[at].set(False, mode="drop")
    return found, free.reshape(found.shape)


def _rows(shape: Shape, slots: int) -> int:
    """Rows of a block: of no more positions than LEAST_BLOCK, or the slots, but at least one."""
    return max(1, min(shape[0], max(LEAST_BLOCK, slots) // shape[1]))


def best_absent(
    scores: Scores, dtype: jnp.dtype, taken: Positions, count: jax.Array, most: int, shape: Shape, slots: int
) -> Positions:
    """The `count` positions of largest score that are not taken; ties go to the lower ones.

    The scores are made for a block of inputs at a time, and only the best so far are kept.

    Args:
      scores: rows are inputs.
      dtype: of the scores, float32 or uint32.
      taken: in any order.
      count: int32[], at most `most` and the positions that are left.
      most: static.
      shape: (I, O) of the layer.
      slots: static, as many positions are looked at a time, or LEAST_BLOCK.
    """
    rows = _rows(shape, slots)

    def look(first, best):
        score, at = best
        found, free = _block(scores, first, rows, shape, taken)
        score = jnp.concatenate([score, found.ravel()])
        kept = _compact(top_k(score, jnp.int32(most), jnp.concatenate([at.inputs < shape[0], free.ravel()])), most)
        place = jnp.arange(rows * shape[1], dtype=jnp.int32)
        new = first + place // shape[1], place % shape[1]
        both = [jnp.concatenate([old, more]) for old, more in zip(at, new, strict=True)]
        return jnp.append(score, jnp.zeros((), dtype))[kept], _picked(Positions(*both), kept, shape)

    nothing = Positions(*(jnp.full(most, side, jnp.int32) for side in shape))
    begin = jnp.zeros(most, dtype), nothing
    score, at = jax.lax.fori_loop(0, -(-shape[0] // rows), lambda i, best: look(i * rows, best), begin)
    chosen = _compact(top_k(score, count, at.inputs < shape[0]), most)
    return _picked(at, chosen, shape)


def best_absent_by_output(
    scores: Scores, taken: Positions, counts: jax.Array, most: int, shape: Shape, slots: int
) -> Positions:
    """For every output the counts[j] inputs of largest score that are not taken; ties go to the lower ones.

    Args:
      scores: rows are outputs.
      taken: in any order.
      counts: int32[O].
      most: static, at least their sum.
      shape: (I, O) of the layer.
      slots: static, as many positions are looked at a time, or LEAST_BLOCK.
    """
    turned, taken = shape[::-1], Positions(taken.outputs, taken.inputs)
    rows = _rows(turned, slots)

    def look(first, found):
        score, free = _block(scores, first, rows, turned, taken)
        row = first + jnp.arange(rows, dtype=jnp.int32)
        wanted = jnp.where(row < turned[0], counts[jnp.minimum(row, turned[0] - 1)], 0)
        place = _compact(top_k_by_group(score, wanted, free).ravel(), most)
        before = jnp.sum(found.outputs < shape[1], dtype=jnp.int32)
        to = jnp.where(place < score.size, before + jnp.arange(most, dtype=jnp.int32), most)
        new = Positions(place % turned[1], first + place // turned[1])
        return Positions(*(old.at[to].set(side, mode="drop") for old, side in zip(found, new, strict=True)))

    nothing = Positions(*(jnp.full(most, side, jnp.int32) for side in shape))
    found = jax.lax.fori_loop(0, -(-turned[0] // rows), lambda i, found: look(i * rows, found), nothing)
    return sort_positions(found, shape)
