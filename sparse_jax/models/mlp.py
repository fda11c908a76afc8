"""Multi-layer perceptrons."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparse_jax.models.layers import Layer, Layers


class MLP(nn.Module):
    """Layers dense_0, dense_1, ... and output; an activation function and dropout after each hidden one.

    Attributes:
      hidden_sizes: widths of the hidden layers, at least one.
      classes: number of outputs.
      activation: layer index -> callable (`activations.by_layer`).
      layers: the seam, see `models.layers`.
      dropout: rate in [0, 1).
    """

    hidden_sizes: tuple[int, ...]
    classes: int
    activation: Callable[[int], Layer]
    layers: Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float[batch, classes], of x, float[batch, ...]."""
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden_sizes):
            x = self.activation(i)(self.layers.dense(f"dense_{i}", width, True)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self.layers.dense("output", self.classes, True)(x)


class SkipMLP(nn.Module):
    """An MLP in which every layer sees the inputs and the values of all earlier hidden layers, one after the other.

    Layers dense_0, dense_1, ... and output: kernel i has [inputs + the widths before it, its width]. With masks it is
    any network without cycles whose nodes are grouped into layers, such as those of `search.wann`.

    Attributes: as those of MLP.
    """

    hidden_sizes: tuple[int, ...]
    classes: int
    activation: Callable[[int], Layer]
    layers: Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float[batch, classes], of x, float[batch, ...]."""
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden_sizes):
            hidden = self.activation(i)(self.layers.dense(f"dense_{i}", width, True)(x))
            hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
            x = jnp.concatenate([x, hidden], axis=-1)
        return self.layers.dense("output", self.classes, True)(x)
