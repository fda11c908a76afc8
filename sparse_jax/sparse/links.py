"""The connections of a sparse layer: sorted by input, with a view by output."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from sparse_jax.sparse.build import chosen_formulation, kernel


class Links(NamedTuple):
    """The connections of a layer of I inputs and O outputs, sorted by input, then by output.

    Slots beyond the number n of connections are empty: n = input_starts[-1] = output_starts[-1] ≤ capacity.
    """

    outputs: jax.Array  # int32[capacity], output of the connection of each slot; of empty slots O
    input_starts: jax.Array  # int32[I + 1], the first slot of each input
    inputs: jax.Array  # int32[capacity], by output, then input: the input of each connection; of empty ones I
    output_starts: jax.Array  # int32[O + 1], the first of each output in that order
    slots: jax.Array  # int32[capacity], the slot of each connection in that order; of empty ones their own

    @property
    def capacity(self) -> int:
        """How many connections there is room for."""
        return self.outputs.shape[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """(I, O)."""
        return self.input_starts.shape[-1] - 1, self.output_starts.shape[-1] - 1


def make_links(
    inputs: jax.Array, outputs: jax.Array, count: jax.Array, shape: tuple[int, int], formulation: str | None = None
) -> Links:
    """The views of connections that are sorted already. Works under jit, vmap and lax.map.

    Args:
      inputs: int32[capacity], of the first `count` slots sorted by (input, output), distinct; others are ignored.
      outputs: int32[capacity], likewise.
      count: int32[], number n of connections, at most the capacity.
      shape: (I, O).
      formulation: "kernel" or "jax", which agree to the integer; None is the quickest here.

    Returns:
      Links of these connections, the others empty.
    """
    n_in, n_out = shape
    empty = lax.iota(jnp.int32, outputs.shape[-1]) >= count
    inputs, outputs = jnp.where(empty, n_in, inputs), jnp.where(empty, n_out, outputs)
    input_starts = _starts(inputs, n_in)
    by_output = {"kernel": _by_output_kernel, "jax": _by_output_jax}[chosen_formulation(formulation)]
    return Links(outputs, input_starts, *by_output(inputs, outputs, input_starts, n_out))


def inputs_of_slots(links: Links) -> jax.Array:
    """int32[capacity]: the input of the connection of each slot, of empty slots I."""
    steps = jnp.zeros(links.capacity, jnp.int32).at[links.input_starts[1:]].add(1, mode="drop")
    return jnp.cumsum(steps, dtype=jnp.int32)


def _starts(units: jax.Array, count: int) -> jax.Array:
    """int32[count + 1]: where each unit of the sorted int32[capacity] begins."""
    return jnp.searchsorted(units, lax.iota(jnp.int32, count + 1), method="scan_unrolled").astype(jnp.int32)


def _by_output_jax(inputs: jax.Array, outputs: jax.Array, input_starts: jax.Array, n_out: int) -> tuple:
    """`inputs`, `output_starts` and `slots` of Links, by a stable sort; empty slots are last and stay there."""
    capacity = outputs.shape[-1]
    slots = lax.iota(jnp.int32, capacity)
    if (n_out + 1) * capacity < 2**31:  # sorting plain numbers is much quicker than sorting pairs
        order = lax.sort(outputs * capacity + slots, is_stable=False)
        sorted_outputs, slots = order // max(capacity, 1), order % max(capacity, 1)
    else:
        sorted_outputs, slots = lax.sort((outputs, slots), num_keys=1, is_stable=True)
    return inputs[slots], _starts(sorted_outputs, n_out), slots


def _by_output_kernel(inputs: jax.Array, outputs: jax.Array, input_starts: jax.Array, n_out: int) -> tuple:
    """The same by the C++ kernel, which knows the inputs by their starts."""
    result = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in (inputs.shape, (n_out + 1,), inputs.shape)]
    call = jax.ffi.ffi_call(kernel().target("by_output"), result, vmap_method="broadcast_all")
    return tuple(call(outputs, input_starts))


def with_capacity(links: Links, capacity: int) -> Links:
    """The same connections in more slots."""
    more, (inputs, outputs) = capacity - links.capacity, links.shape
    slots = lax.iota(jnp.int32, capacity)[links.capacity :]
    return links._replace(
        outputs=jnp.pad(links.outputs, (0, more), constant_values=outputs),
        inputs=jnp.pad(links.inputs, (0, more), constant_values=inputs),
        slots=jnp.concatenate([links.slots, slots]),
    )
