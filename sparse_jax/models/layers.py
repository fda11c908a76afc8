"""The layers of every model: what a model calls for whatever has a kernel or normalises.

A model gets its layers as a `Layers`, which holds what the configuration says of them (initialiser, type of the
arithmetic), so that no model knows it; and it is the seam by which another execution replaces a product.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers

from sparse_jax.models.convolution import conv_general_dilated, depthwise

Layer = Callable[[jax.Array], jax.Array]


class Initializer(NamedTuple):
    """How the first weights of a kernel are drawn."""

    draw: initializers.Initializer
    both_fans: bool  # their variance goes by (fan_in + fan_out) / 2, else by fan_in


# fans are those of the dense kernel: taps times channels for convolutions
INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": Initializer(initializers.glorot_uniform(), True),  # variance 1 / fan, Glorot and Bengio 2010
    "glorot_normal": Initializer(initializers.glorot_normal(), True),
    "he_uniform": Initializer(initializers.he_uniform(), False),  # variance 2 / fan, He et al. 2015
    "he_normal": Initializer(initializers.he_normal(), False),
    "lecun_uniform": Initializer(initializers.lecun_uniform(), False),  # variance 1 / fan, LeCun et al. 1998
    "lecun_normal": Initializer(initializers.lecun_normal(), False),
}
BATCH_NORM_MOMENTUM = 0.9  # share of its past in the running statistics, as PyTorch has it
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Layers(NamedTuple):
    """Makers of layers; each takes the name first, and is called within a compact linen method.

    Attributes:
      dense: (name, features, bias) -> layer over the last axis.
      conv: (name, features, size, stride, padding, bias) -> layer over [batch, height, width, channels].
      depthwise: (name, size, stride) -> convolution of every channel by itself, without bias.
      batch_norm: (name, train) -> batch normalisation over all but the last axis.
      layer_norm: (name) -> layer normalisation over the last axis.
    """

    dense: Callable[[str, int, bool], Layer]
    conv: Callable[[str, int, int, int, str, bool], Layer]
    depthwise: Callable[[str, int, int], Layer]
    batch_norm: Callable[[str, bool], Layer]
    layer_norm: Callable[[str], Layer]


class Depthwise(nn.Module):
    """A convolution of every channel by itself, with the parameter kernel[size, size, 1, channels]."""

    size: int
    stride: int
    kernel_init: initializers.Initializer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, 1, x.shape[-1]))
        return depthwise(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


def make_layers(initializer: str, dtype: str, batch_axis: str | None = None) -> Layers:
    """The layers of linen, with parameters in float32.

    Args:
      initializer: of the kernels, a key of INITIALIZERS; biases start at 0.
      dtype: of the arithmetic, a key of DTYPES; statistics of a normalisation are float32 in any case.
      batch_axis: of the mesh, along which devices have parts of one batch, if they do: its statistics are of all parts.
    """
    kernel, compute = INITIALIZERS[initializer].draw, DTYPES[dtype]

    def conv(name: str, features: int, size: int, stride: int, padding: str, bias: bool) -> Layer:
        return nn.Conv(
            features, (size, size), stride, padding, use_bias=bias, kernel_init=kernel, dtype=compute, name=name,
            conv_general_dilated=conv_general_dilated,
        )  # fmt: skip

    return Layers(
        dense=lambda name, features, bias: nn.Dense(
            features, use_bias=bias, kernel_init=kernel, dtype=compute, name=name
        ),
        conv=conv,
        depthwise=lambda name, size, stride: Depthwise(size, stride, kernel, compute, name=name),
        batch_norm=lambda name, train: nn.BatchNorm(
            use_running_average=not train, momentum=BATCH_NORM_MOMENTUM, dtype=compute, name=name,
            axis_name=batch_axis if train else None,
        ),
        layer_norm=lambda name: nn.LayerNorm(dtype=compute, name=name),
    )
