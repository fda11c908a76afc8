"""LeNet-5 in the three forms that the literature prunes."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from sparse_jax.models.forms import LENETS
from sparse_jax.models.layers import Layer, Layers


class LeNet5(nn.Module):
    """conv_0, pool, conv_1, pool, dense_0, ..., output; an activation function after each but the last.

    Convolutions are 5 × 5, pools take the maximum of 2 × 2. The forms (`models.forms.LENETS`): that of Caffe, on
    which most pruning results are; that of Alford et al. 2018 (arXiv:1810.00299) with local response normalisation
    after the first pool and before the second as in TensorFlow's tutorial, which they build on; that of Loni et al.
    2023 (arXiv:2305.10964), LeCun's own widths. Caffe's network has no activation function after its convolutions;
    here each has one.

    Attributes:
      form: a key of LENETS.
      classes: number of outputs.
      activation: layer index -> callable; convolutions count first.
      layers: the seam, see `models.layers`.
      dropout: rate in [0, 1), after each hidden dense layer.
    """

    form: str
    classes: int
    activation: Callable[[int], Layer]
    layers: Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float[batch, classes], of images x, float[batch, height, width, channels]."""
        form = LENETS[self.form]
        for i, width in enumerate(form.convolutions):
            x = self.activation(i)(self.layers.conv(f"conv_{i}", width, 5, 1, form.padding, True)(x))
            x = response_normalization(x) if form.response_norm and i == 1 else x
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = response_normalization(x) if form.response_norm and i == 0 else x
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(form.dense):
            x = self.activation(len(form.convolutions) + i)(self.layers.dense(f"dense_{i}", width, True)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self.layers.dense("output", self.classes, True)(x)


def response_normalization(x: jax.Array) -> jax.Array:
    """Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3).

        y_c = x_c / (1 + α Σ x_d²)^¾,   d from c − 4 to c + 4,   α = 0.001 / 9

    with the constants of TensorFlow's CIFAR-10 tutorial. Statistics are float32.
    """
    squares = x.astype(jnp.float32) ** 2
    sums = lax.reduce_window(squares, 0.0, lax.add, (1, 1, 1, 9), (1, 1, 1, 1), "SAME")
    return (x * (1 + 0.001 / 9 * sums) ** -0.75).astype(x.dtype)
