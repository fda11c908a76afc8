"""A small vision transformer."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from sparse_jax.models.forms import EMBEDDING, scaled
from sparse_jax.models.layers import Layer, Layers

_POSITIONS = nn.initializers.normal(0.02)


class Transformer(nn.Module):
    """The encoder of ViT (Dosovitskiy et al. 2021, arXiv:2010.11929), read out at its class token.

    Patches are embedded linearly; each block is norm, attention, norm and two dense layers with an activation
    function between, both around a shortcut. Of the attention the kernels query, key, value and out are matrices of
    all heads together. Width 3, depth 12, 3 heads and patches of 16 are ViT-Tiny (Touvron et al. 2021).

    Attributes:
      depth: blocks.
      width: factor of the 64 features of a token.
      heads: of the attention; they divide the features.
      patch_size: side of a patch; it divides the sides of the images.
      classes: number of outputs.
      activation: block index -> callable.
      layers: the seam, see `models.layers`.
      dropout: rate in [0, 1), of what each half of a block adds.
    """

    depth: int
    width: float
    heads: int
    patch_size: int
    classes: int
    activation: Callable[[int], Layer]
    layers: Layers
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits, float[batch, classes], of images x, float[batch, height, width, channels]."""
        features = scaled(EMBEDDING, self.width)
        x = self.layers.dense("embedding", features, True)(_patches(x, self.patch_size))
        token = self.param("class_token", nn.initializers.zeros, (1, 1, features))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, features)).astype(x.dtype), x], axis=1)
        x = x + self.param("positions", _POSITIONS, (1, x.shape[1], features)).astype(x.dtype)
        for i in range(self.depth):
            for half in (self._attention, self._two_layers):
                x = x + nn.Dropout(self.dropout, deterministic=not train)(half(i, x))
        x = self.layers.layer_norm("output_norm")(x[:, 0])
        return self.layers.dense("output", self.classes, True)(x)

    def _attention(self, i: int, x: jax.Array) -> jax.Array:
        x = self.layers.layer_norm(f"block_{i}_attention_norm")(x)
        split = (*x.shape[:2], self.heads, -1)
        query, key, value = (
            self.layers.dense(f"block_{i}_{name}", x.shape[-1], True)(x).reshape(split)
            for name in ("query", "key", "value")
        )
        mixed = nn.dot_product_attention(query, key, value, force_fp32_for_softmax=True).reshape(x.shape)
        return self.layers.dense(f"block_{i}_out", x.shape[-1], True)(mixed)

    def _two_layers(self, i: int, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        x = self.layers.layer_norm(f"block_{i}_dense_norm")(x)
        x = self.activation(i)(self.layers.dense(f"block_{i}_dense_0", 4 * features, True)(x))
        return self.layers.dense(f"block_{i}_dense_1", features, True)(x)


def _patches(x: jax.Array, size: int) -> jax.Array:
    """float[batch, patches, size · size · channels] of images."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size * channels)
