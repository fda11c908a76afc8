"""EfficientNet-B0."""

import itertools
from collections.abc import Callable

import flax.linen as nn
import jax

from sparse_jax.models.forms import HEAD, STEM, inverted_blocks, scaled, stem_stride
from sparse_jax.models.layers import Layer, Layers


class EfficientNetB0(nn.Module):
    """EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946, table 1), also for images of 16 × 16 and 32 × 32.

    A block widens by a 1 × 1 convolution, convolves every channel by itself, weighs the channels by what they hold on
    the mean (squeeze and excitation) and narrows by a 1 × 1 convolution; its input is added where it has no stride and
    as many channels. For images below 64 × 64 the first convolution has no stride, so that 16 × 16 are still 1 × 1 at
    the end. Without stochastic depth.

    Attributes:
      width: factor of the numbers of channels.
      gate: what makes the weights of the channels of an excitation.
      classes: number of outputs.
      activation: layer index -> callable.
      layers: the seam, see `models.layers`.
      dropout: rate in [0, 1), before the output.
    """

    width: float
    gate: Layer
    classes: int
    activation: Callable[[int], Layer]
    layers: Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float[batch, classes], of images x, float[batch, height, width, channels]."""
        index = itertools.count()

        def act(x: jax.Array) -> jax.Array:
            return self.activation(next(index))(x)

        def pointwise(name: str, x: jax.Array, features: int) -> jax.Array:
            return norm(name, self.layers.conv(name, features, 1, 1, "SAME", False)(x))

        def norm(name: str, x: jax.Array) -> jax.Array:
            return self.layers.batch_norm(f"{name}_norm", train)(x)

        def excited(name: str, x: jax.Array, squeezed: int) -> jax.Array:
            held = act(self.layers.dense(f"{name}_squeeze", squeezed, True)(x.mean((1, 2))))
            weights = self.gate(self.layers.dense(f"{name}_excite", x.shape[-1], True)(held))
            return x * weights[:, None, None, :]

        x = self.layers.conv("conv_0", scaled(STEM, self.width), 3, stem_stride(x.shape[1:3]), "SAME", False)(x)
        x = act(norm("conv_0", x))
        for block in inverted_blocks(self.width):
            y = x
            if block.expanded != block.inputs:
                y = act(pointwise(f"{block.name}_expand", y, block.expanded))
            name = f"{block.name}_depthwise"
            y = act(norm(name, self.layers.depthwise(name, block.size, block.stride)(y)))
            y = excited(block.name, y, block.squeezed)
            y = pointwise(f"{block.name}_project", y, block.channels)
            x = x + y if block.stride == 1 and block.inputs == block.channels else y
        x = act(pointwise("conv_head", x, scaled(HEAD, self.width)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return self.layers.dense("output", self.classes, True)(x)
