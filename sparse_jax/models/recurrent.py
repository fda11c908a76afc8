"""Recurrent networks on the rows of images, or on sequences, with one kernel a gate."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Out

from sparse_jax.models.forms import CELL_GATES
from sparse_jax.models.layers import Layer, Layers


class LSTMLayer(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), float[batch, steps, inputs] to [batch, steps, units].

        i, f, o = σ(x W + h U + b)  (f with b + 1),   g = φ(x W_g + h U_g + b_g),
        c ← f c + i g,   h ← o φ(c)

    The products with inputs are made at once, c is float32.
    """

    units: int
    activation: Callable[[], Layer]
    gate: Layer
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = {gate: self.layers.dense(f"input_{gate}", self.units, True)(x) for gate in CELL_GATES["lstm"]}
        hidden = jnp.zeros((x.shape[0], self.units), inputs["i"].dtype)

        def advance(layer: "LSTMLayer", carry: tuple, row: dict) -> tuple:
            hidden, cell = carry
            i, f, g, o = (row[k] + layer.layers.dense(f"recurrent_{k}", layer.units, False)(hidden) for k in "ifgo")
            activation = layer.activation()
            cell = layer.gate(f + 1) * cell + layer.gate(i) * activation(g)
            out = (layer.gate(o) * activation(cell)).astype(hidden.dtype)
            return (out, cell), out

        return _over_time(advance)(self, (hidden, hidden.astype(jnp.float32)), inputs)[1]


class GRULayer(nn.Module):
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078), float[batch, steps, inputs] to [batch, steps, units].

        r, z = σ(x W + h U + b),   n = φ(x W_n + b_n + r (h U_n + c_n)),   h ← (1 − z) n + z h

    with the reset after the recurrent product, as in cuDNN. The products with inputs are made at once.
    """

    units: int
    activation: Callable[[], Layer]
    gate: Layer
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = {gate: self.layers.dense(f"input_{gate}", self.units, True)(x) for gate in CELL_GATES["gru"]}
        zero = jnp.zeros((x.shape[0], self.units), inputs["r"].dtype)

        def advance(layer: "GRULayer", hidden: jax.Array, row: dict) -> tuple:
            r, z, n = (layer.layers.dense(f"recurrent_{k}", layer.units, k == "n")(hidden) for k in "rzn")
            update = layer.gate(row["z"] + z)
            new = layer.activation()(row["n"] + layer.gate(row["r"] + r) * n)
            hidden = ((1 - update) * new + update * hidden).astype(zero.dtype)
            return hidden, hidden

        return _over_time(advance)(self, zero, inputs)[1]


def _over_time(advance: Callable) -> Callable:
    """`advance` over the second axis of its rows, with the same parameters at every step; what it sows is stacked."""
    return nn.scan(
        advance, variable_broadcast=["params", "choices"], variable_axes={"intermediates": Out(1)},
        split_rngs={"params": False}, in_axes=1, out_axes=1,
    )  # fmt: skip


CELLS = {"lstm": LSTMLayer, "gru": GRULayer}


class Recurrent(nn.Module):
    """Layers of recurrent cells, read out after the last step.

    The kernels of the gates are <form>_<layer>/input_<gate> and <form>_<layer>/recurrent_<gate>.

    Attributes:
      form: a key of CELLS.
      hidden_sizes: units of each layer, at least one.
      gate: σ of the cells.
      classes: number of outputs.
      activation: layer index -> φ of the cells.
      layers: the seam, see `models.layers`.
      dropout: rate in [0, 1), after each layer.
    """

    form: str
    hidden_sizes: tuple[int, ...]
    gate: Layer
    classes: int
    activation: Callable[[int], Layer]
    layers: Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float[batch, classes], of x, float[batch, steps, ...]: a step is a row, of all its channels."""
        x = x.reshape(*x.shape[:2], -1)
        for i, units in enumerate(self.hidden_sizes):
            cell = CELLS[self.form](units, partial(self.activation, i), self.gate, self.layers, name=f"{self.form}_{i}")
            x = nn.Dropout(self.dropout, deterministic=not train)(cell(x))
        return self.layers.dense("output", self.classes, True)(x[:, -1])
