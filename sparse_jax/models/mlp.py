"""Multi-layer perceptron."""

from collections.abc import Callable

import flax.linen as nn
import jax

Layer = Callable[[jax.Array], jax.Array]


def dense(name: str, features: int) -> Layer:
    """The default of `linear`: a linen Dense layer."""
    return nn.Dense(features, kernel_init=nn.initializers.glorot_uniform(), name=name)


class MLP(nn.Module):
    """Layers dense_0, dense_1, ... and output; an activation function and dropout after each hidden one.

    Attributes:
      hidden_sizes: widths of the hidden layers, at least one.
      classes: number of outputs.
      activation: layer index -> callable (`activations.by_layer`).
      dropout: rate in [0, 1).
      linear: (name, features) -> layer; the seam by which sparse execution replaces the dense product.
    """

    hidden_sizes: tuple[int, ...]
    classes: int
    activation: Callable[[int], Layer]
    dropout: float
    linear: Callable[[str, int], Layer] = dense

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float32[batch, classes], of x, float32[batch, ...]."""
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden_sizes):
            x = self.activation(i)(self.linear(f"dense_{i}", width)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self.linear("output", self.classes)(x)
