"""Convolutions whose gradients are as quick inside a loop of a compiled program as outside."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")

Pads = tuple[tuple[int, int], ...]


def conv_general_dilated(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **defaults: Any
) -> jax.Array:
    """`lax.conv_general_dilated` with other programs for its gradients, to be given to `nn.Conv` under that name.

    XLA on CPU brings convolutions to the one layout that its quick kernel knows, but not those within a loop: there
    the gradients fall to a kernel that is 4 to 17 times slower (jax-ml/jax#12868). Here they are written in that
    layout; only the order of summation may differ.

    Args:
      x: float[batch, height, width, n_in].
      kernel: float[height, width, n_in, n_out].
      strides: of the window, two.
      padding: "SAME", "VALID", or (before, after) for both axes.
      **defaults: what else `nn.Conv` passes.

    Returns:
      float[batch, height, width, n_out].

    Raises:
      ValueError: for dilations or groups.
    """
    more = {name: value for name, value in defaults.items() if name.endswith(("dilation", "count"))}
    if any(value not in (None, 1, (1, 1)) for value in more.values()):
        raise ValueError(f"this convolution has neither dilations nor groups: {more}")
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _convolve(x, kernel, tuple(strides), tuple((int(low), int(high)) for low, high in padding))


def _forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT)


_convolve = partial(jax.custom_vjp, nondiff_argnums=(2, 3))(_forward)


def _with_residuals(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads) -> tuple:
    return _forward(x, kernel, strides, pads), (x, kernel)


def _backward(strides: tuple[int, ...], pads: Pads, residuals: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For x, g spread by the strides convolved with the kernel turned about; for the kernel, x with g spread."""
    x, kernel = residuals
    axes = range(2)
    spread = [(g.shape[1 + i] - 1) * strides[i] + 1 for i in axes]
    low = [kernel.shape[i] - 1 - pads[i][0] for i in axes]
    high = [x.shape[1 + i] - spread[i] + pads[i][0] for i in axes]
    dx = lax.conv_general_dilated(
        g,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        list(zip(low, high, strict=True)),
        lhs_dilation=strides,
        dimension_numbers=_LAYOUT,
    )
    high = [kernel.shape[i] - 1 + spread[i] - x.shape[1 + i] - pads[i][0] for i in axes]
    dkernel = lax.conv_general_dilated(
        jnp.transpose(x, (3, 1, 2, 0)),
        jnp.transpose(g, (1, 2, 0, 3)),
        (1, 1),
        [(pads[i][0], high[i]) for i in axes],
        rhs_dilation=strides,
        dimension_numbers=_LAYOUT,
    )
    return dx, jnp.transpose(dkernel, (1, 2, 0, 3))


_convolve.defvjp(_with_residuals, _backward)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Every channel convolved by itself, padded to keep height / stride and width / stride.

        y[i, j, c] = Σ_ab x[stride i + a, stride j + b, c] kernel[a, b, 0, c]

    A sum over taps of shifted images, so that its gradients are such sums, too: those of `lax` in a loop on CPU take 20
    to 80 times as long. Sums are float32.

    Args:
      x: float[batch, height, width, channels].
      kernel: float[size, size, 1, channels].
      stride: of the window, on both axes.

    Returns:
      x's dtype[batch, ⌈height / stride⌉, ⌈width / stride⌉, channels].
    """
    size = kernel.shape[:2]
    pads = lax.padtype_to_pads(x.shape[1:3], size, (stride, stride), "SAME")
    height, width = (stride * (-(-side // stride) - 1) + 1 for side in x.shape[1:3])  # from the first tap to the last
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    total = jnp.zeros((), jnp.float32)
    for a, b in itertools.product(*map(range, size)):
        image = padded[:, a : a + height : stride, b : b + width : stride]
        total = total + (kernel[a : a + 1, b : b + 1] * image).astype(jnp.float32)
    return total.astype(x.dtype)
