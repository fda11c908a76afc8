"""Recurrent networks on the rows of images, or on sequences, with one kernel a gate."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparse_jax.models.layers import Layer, Layers


class LSTM(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), read out after the last step.

        i, f, o = σ(x W + h U + b)  (f with b + 1),   g = φ(x W_g + h U_g + b_g),
        c ← f c + i g,   h ← o φ(c)

    The kernels W and U of the four gates are lstm_<layer>/input_<gate> and lstm_<layer>/recurrent_<gate>.

    Attributes:
      hidden_sizes: units of each layer, at least one.
      gate: σ.
      classes: number of outputs.
      activation: layer index -> φ.
      layers: the seam, see `models.layers`.
      dropout: rate in [0, 1), between the layers and before the output.
    """

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
            x = LSTMLayer(units, lambda i=i: self.activation(i), self.gate, self.layers, name=f"lstm_{i}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self.layers.dense("output", self.classes, True)(x[:, -1])


class GRU(nn.Module):
    """Gated recurrent units (Cho et al. 2014, arXiv:1406.1078), read out after the last step.

        r, z = σ(x W + h U + b),   n = φ(x W_n + b_n + r (h U_n + c_n)),   h ← (1 − z) n + z h

    with the reset after the recurrent product, as in cuDNN. The kernels are gru_<layer>/input_<gate> and
    gru_<layer>/recurrent_<gate>. Attributes as of `LSTM`.
    """

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
            x = GRULayer(units, lambda i=i: self.activation(i), self.gate, self.layers, name=f"gru_{i}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self.layers.dense("output", self.classes, True)(x[:, -1])


class LSTMLayer(nn.Module):
    """One layer: float[batch, steps, inputs] -> float[batch, steps, units]. The input products are made at once."""

    units: int
    activation: Callable[[], Layer]
    gate: Layer
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = {gate: self.layers.dense(f"input_{gate}", self.units, True)(x) for gate in "ifgo"}
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
    """One layer: float[batch, steps, inputs] -> float[batch, steps, units]. The input products are made at once."""

    units: int
    activation: Callable[[], Layer]
    gate: Layer
    layers: Layers

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = {gate: self.layers.dense(f"input_{gate}", self.units, True)(x) for gate in "rzn"}
        zero = jnp.zeros((x.shape[0], self.units), inputs["r"].dtype)

        def advance(layer: "GRULayer", hidden: jax.Array, row: dict) -> tuple:
            r, z, n = (layer.layers.dense(f"recurrent_{k}", layer.units, k == "n")(hidden) for k in "rzn")
            update = layer.gate(row["z"] + z)
            new = layer.activation()(row["n"] + layer.gate(row["r"] + r) * n)
            hidden = ((1 - update) * new + update * hidden).astype(zero.dtype)
            return hidden, hidden

        return _over_time(advance)(self, zero, inputs)[1]


def _over_time(advance: Callable) -> Callable:
    """`advance` over the second axis of its rows, with the same parameters at every step."""
    return nn.scan(advance, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)
