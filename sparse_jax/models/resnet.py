"""Residual networks for small images."""

import itertools
from collections.abc import Callable

import flax.linen as nn
import jax

from sparse_jax.models.forms import RESNETS, residual_blocks, scaled, wide_stages
from sparse_jax.models.layers import Layer, Layers


class ResNet(nn.Module):
    """ResNet-18 and -34 of basic blocks (He et al. 2016, arXiv:1512.03385) in the form that is usual for CIFAR.

    The first convolution is 3 × 3 without stride or pool. A block is conv, norm, activation, conv, norm, to which its
    input is added before the second activation; where shape or channels change, the input passes a 1 × 1
    convolution and a norm first. Then the mean over the image, dropout, and the output.

    Attributes:
      form: a key of RESNETS.
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
        index = itertools.count()

        def act(x: jax.Array) -> jax.Array:
            return self.activation(next(index))(x)

        def normalized(name: str, x: jax.Array, features: int, size: int, stride: int) -> jax.Array:
            x = self.layers.conv(name, features, size, stride, "SAME", False)(x)
            return self.layers.batch_norm(f"{name}_norm", train)(x)

        first = scaled(64, self.width)
        x = act(normalized("conv_0", x, first, 3, 1))
        for block in residual_blocks(first, 64, RESNETS[self.form], self.width):
            y = act(normalized(f"{block.name}_conv_0", x, block.channels, 3, block.stride))
            y = normalized(f"{block.name}_conv_1", y, block.channels, 3, 1)
            if block.projects:
                x = normalized(f"{block.name}_shortcut", x, block.channels, 1, block.stride)
            x = act(x + y)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return self.layers.dense("output", self.classes, True)(x)


class WideResNet(nn.Module):
    """Wide residual network WRN-depth-width (Zagoruyko and Komodakis 2016, arXiv:1605.07146).

    Norm and activation come before each convolution, dropout between the two of a block; where channels change, the
    shortcut is a 1 × 1 convolution of the activated input. A last norm and activation, the mean over the image, and
    the output.

    Attributes:
      depth: 6 n + 4, with n blocks in each of three stages.
      width: factor of the 16, 32 and 64 channels of the stages.
      classes: number of outputs.
      activation: layer index -> callable.
      layers: the seam, see `models.layers`.
      dropout: rate in [0, 1), within the blocks.
    """

    depth: int
    width: float
    classes: int
    activation: Callable[[int], Layer]
    layers: Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float[batch, classes], of images x, float[batch, height, width, channels]."""
        index = itertools.count()

        def activated(name: str, x: jax.Array) -> jax.Array:
            return self.activation(next(index))(self.layers.batch_norm(f"{name}_norm", train)(x))

        def conv(name: str, x: jax.Array, features: int, size: int, stride: int) -> jax.Array:
            return self.layers.conv(name, features, size, stride, "SAME", False)(x)

        x = conv("conv_0", x, 16, 3, 1)
        for block in residual_blocks(16, 16, wide_stages(self.depth), self.width):
            y = activated(f"{block.name}_conv_0", x)
            if block.projects:
                x = conv(f"{block.name}_shortcut", y, block.channels, 1, block.stride)
            y = activated(f"{block.name}_conv_1", conv(f"{block.name}_conv_0", y, block.channels, 3, block.stride))
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            x = x + conv(f"{block.name}_conv_1", y, block.channels, 3, 1)
        return self.layers.dense("output", self.classes, True)(activated("output", x).mean((1, 2)))
