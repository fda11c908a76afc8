"""The product of a sparse layer with a batch, in time proportional to the connections there are."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from sparse_jax.sparse.build import chosen_formulation, kernel
from sparse_jax.sparse.links import Links, inputs_of_slots

BLOCK = 2**24  # floats of an intermediate result of the pure JAX formulation, each of a run


class Formulation(NamedTuple):
    """One way to compute the product and its derivatives.

    All take `values` float32[capacity], Links, `x` float32[I, B] and `dy` float32[O, B]; dvalues of empty slots are 0.
    """

    forward: Callable[[jax.Array, Links, jax.Array], jax.Array]  # y[O, B]
    backward: Callable[[jax.Array, Links, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # dvalues, dx[I, B]
    gradient: Callable[[Links, jax.Array, jax.Array], jax.Array]  # dvalues only


def _call(name: str, results: Any, *arguments: jax.Array) -> Any:
    return jax.ffi.ffi_call(kernel().target(name), results, vmap_method="broadcast_all")(*arguments)


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _kernel_forward(values: jax.Array, links: Links, x: jax.Array) -> jax.Array:
    y = jax.ShapeDtypeStruct((links.shape[1], x.shape[1]), jnp.float32)
    return _call("forward", y, values, *links, x)


def _kernel_backward(values: jax.Array, links: Links, x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    return tuple(_call("backward", [_like(values), _like(x)], values, links.outputs, links.input_starts, x, dy))


def _kernel_gradient(links: Links, x: jax.Array, dy: jax.Array) -> jax.Array:
    dvalues = jax.ShapeDtypeStruct(links.outputs.shape, jnp.float32)
    return _call("gradient", dvalues, links.outputs, links.input_starts, x, dy)


def _blocks(batch: int, *arrays: tuple[jax.Array, int]) -> list[jax.Array]:
    """Arrays [capacity] as [blocks, connections of a block]; each comes with what fills the last block."""
    capacity = arrays[0][0].shape[0]
    count = -(-capacity * batch // BLOCK)
    size = -(-capacity // count)
    fill = (0, count * size - capacity)
    return [jnp.pad(array, fill, constant_values=empty).reshape(count, size) for array, empty in arrays]


def _rows(x: jax.Array, units: jax.Array) -> jax.Array:
    return jnp.take(x, units, axis=0, mode="clip")  # what empty slots get goes nowhere


def _add_rows(total: jax.Array, units: jax.Array, rows: jax.Array) -> jax.Array:
    return total.at[units].add(rows, mode="drop", indices_are_sorted=True)


def _jax_forward(values: jax.Array, links: Links, x: jax.Array) -> jax.Array:
    def add(y, block):
        value, unit_in, unit_out = block
        return _add_rows(y, unit_out, value[:, None] * _rows(x, unit_in)), None

    n_in, n_out = links.shape
    batch = x.shape[1]
    values, outputs = _rows(values, links.slots), _rows(links.outputs, links.slots)
    blocks = _blocks(batch, (values, 0), (links.inputs, n_in), (outputs, n_out))
    return lax.scan(add, jnp.zeros((n_out, batch), x.dtype), blocks)[0]


def _jax_sweep(values: jax.Array | None, links: Links, x: jax.Array, dy: jax.Array) -> tuple[jax.Array, Any]:
    """dvalues and dx; dx is None if the values are."""

    def step(dx, block):
        unit_in, unit_out, *value = block
        rows = _rows(dy, unit_out)
        dvalues = jnp.where(unit_in < n_in, jnp.sum(_rows(x, unit_in) * rows, axis=1), 0)
        return dx if dx is None else _add_rows(dx, unit_in, value[0][:, None] * rows), dvalues

    n_in, n_out = links.shape
    arrays = [(inputs_of_slots(links), n_in), (links.outputs, n_out)]
    if values is not None:
        arrays.append((values, 0))
    start = None if values is None else jnp.zeros_like(x)
    dx, dvalues = lax.scan(step, start, _blocks(x.shape[1], *arrays))
    return dvalues.ravel()[: links.capacity], dx


def _jax_gradient(links: Links, x: jax.Array, dy: jax.Array) -> jax.Array:
    return _jax_sweep(None, links, x, dy)[0]


FORMULATIONS = {
    "kernel": Formulation(_kernel_forward, _kernel_backward, _kernel_gradient),
    "jax": Formulation(_jax_forward, _jax_sweep, _jax_gradient),
}


def multiply(values: jax.Array, links: Links, x: jax.Array, formulation: str | None = None) -> jax.Array:
    """The product of a sparse layer with a batch, one column an example.

        y[o, b] = Σ_j values[j] x[input of j, b] over the connections j of output o

    Can be differentiated once, in reverse and not forward, by values and x; dx costs nothing where x is not
    differentiated. In a slot without a connection the gradient is 0 and the value has no effect. Works under every
    transformation of the runs in front, with links of their own or shared; `shard_map` needs check_vma=False.

    Args:
      values: float32[capacity], one a slot.
      links: where the connections are.
      x: float32[I, B].
      formulation: of FORMULATIONS; None is the C++ kernel where there is one and JAX computes on CPU, else pure JAX,
        which serves all devices and `jax.export`.

    Returns:
      float32[O, B].
    """
    n_out, batch = links.shape[1], x.shape[1]
    if 0 in (links.capacity, n_out, *x.shape):
        return jnp.zeros((n_out, batch), x.dtype)
    return _multiply(values, links, x, chosen_formulation(formulation))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _multiply(values: jax.Array, links: Links, x: jax.Array, formulation: str) -> jax.Array:
    return FORMULATIONS[formulation].forward(values, links, x)


def _with_residuals(values: Any, links: Any, x: Any, formulation: str) -> tuple[jax.Array, tuple]:
    """Arguments come with a flag each; without values among the residuals, dx is not wanted."""
    links = jax.tree.map(lambda primal: primal.value, links)
    y = FORMULATIONS[formulation].forward(values.value, links, x.value)
    return y, (values.value if x.perturbed else None, links, x.value)


def _derivatives(formulation: str, residuals: tuple, dy: jax.Array | SymbolicZero) -> tuple:
    values, links, x = residuals
    if isinstance(dy, SymbolicZero):
        return None, None, None
    if values is None:
        return FORMULATIONS[formulation].gradient(links, x, dy), None, None
    dvalues, dx = FORMULATIONS[formulation].backward(values, links, x, dy)
    return dvalues, None, dx


_multiply.defvjp(_with_residuals, _derivatives, symbolic_zeros=True)
