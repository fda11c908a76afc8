"""VGG for small images, with batch normalisation."""

from collections.abc import Callable

import flax.linen as nn
import jax

from sparse_jax.models.forms import POOL, VGGS, scaled
from sparse_jax.models.layers import Layer, Layers


class VGG(nn.Module):
    """conv_0, conv_1, ... and output, in the form that is usual for CIFAR.

    The convolutions of Simonyan and Zisserman 2015 (arXiv:1409.1556), 3 × 3 with biases, each followed by batch
    normalisation and an activation function; pools of 2 × 2 that round up, so that images of any size pass; then
    the mean over the image, dropout, and one dense layer in place of the three for ImageNet.

    Attributes:
      form: a key of VGGS.
      width: factor of the numbers of channels.
      classes: number of outputs.
      activation: layer index -> callable.
      layers: the seam, see `models.layers`.
      dropout: rate in [0, 1), before the output.
    """

    form: str
    width: float
    classes: int
    activation: Callable[[int], Layer]
    layers: Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float[batch, classes], of images x, float[batch, height, width, channels]."""
        i = 0
        for channels in VGGS[self.form]:
            if channels == POOL:
                x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
                continue
            x = self.layers.conv(f"conv_{i}", scaled(channels, self.width), 3, 1, "SAME", True)(x)
            x = self.activation(i)(self.layers.batch_norm(f"norm_{i}", train)(x))
            i += 1
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return self.layers.dense("output", self.classes, True)(x)
