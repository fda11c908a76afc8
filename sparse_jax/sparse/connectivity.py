"""How much of a chain of layers is cut off, where some of them have links instead of a mask.

The measures are those of `topology.paths`, and so are the words.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.sparse.links import Links, inputs_of_slots
from sparse_jax.topology.paths import Connectivity


class _Kernel(NamedTuple):
    """A layer by its mask."""

    mask: jax.Array  # bool[taps, I, O]

    def forward(self, there: jax.Array) -> jax.Array:
        """bool[O]: which outputs have a connection from an input that is `there`, bool[I]."""
        return jnp.any(self.mask & there[None, :, None], axis=(0, 1))

    def backward(self, back: jax.Array) -> jax.Array:
        """bool[I]: which inputs have a connection to an output that is `back`, bool[O]."""
        return jnp.any(self.mask & back[None, None], axis=(0, 2))

    def between(self, there: jax.Array, back: jax.Array) -> jax.Array:
        """int32[], the connections from what is `there` to what is `back`."""
        return jnp.sum(self.mask & there[None, :, None] & back[None, None], dtype=jnp.int32)

    @property
    def sides(self) -> tuple[int, int]:
        return self.mask.shape[1:]


class _Pairs(NamedTuple):
    """A layer by its connections; the methods are those of `_Kernel`."""

    inputs: jax.Array  # int32[capacity], I of empty slots
    outputs: jax.Array  # int32[capacity], O of empty slots
    sides: tuple[int, int]

    def forward(self, there: jax.Array) -> jax.Array:
        reached = jnp.append(there, False)[self.inputs]
        return jnp.zeros(self.sides[1], bool).at[self.outputs].max(reached, mode="drop")

    def backward(self, back: jax.Array) -> jax.Array:
        reaching = jnp.append(back, False)[self.outputs]
        return jnp.zeros(self.sides[0], bool).at[self.inputs].max(reaching, mode="drop")

    def between(self, there: jax.Array, back: jax.Array) -> jax.Array:
        return jnp.sum(jnp.append(there, False)[self.inputs] & jnp.append(back, False)[self.outputs], dtype=jnp.int32)


def _chain(layers: Sequence[jax.Array | Links]) -> list[_Kernel | _Pairs]:
    """The layers over channels: input i of a dense layer behind a flattened convolution is channel i mod channels."""
    chain: list[_Kernel | _Pairs] = []
    for layer in layers:
        before = chain[-1].sides[1] if chain else None
        if not isinstance(layer, Links):
            inputs = layer.shape[-2] if before is None else before
            chain.append(_Kernel(jnp.asarray(layer).reshape(-1, inputs, layer.shape[-1])))
            continue
        shape = layer.input_starts.shape[0] - 1, layer.output_starts.shape[0] - 1
        inputs, channels = inputs_of_slots(layer), shape[0] if before is None else before
        channel = jnp.where(inputs < shape[0], inputs % channels, channels)
        chain.append(_Pairs(channel, jnp.asarray(layer.outputs), (channels, shape[1])))
    return chain


def connectivity(layers: Sequence[jax.Array | Links]) -> Connectivity:
    """The measures of a chain from the input to the output: of each layer the mask, bool[..., I, O], or the links."""
    chain = _chain(layers)
    everywhere = [jnp.ones(layer.sides[0], bool) for layer in chain] + [jnp.ones(chain[-1].sides[1], bool)]
    there, back = everywhere[:1], everywhere[-1:]
    for layer in chain:
        there.append(layer.forward(there[-1]))
    for layer in reversed(chain):
        back.insert(0, layer.backward(back[0]))
    fed = [layer.forward(ones) for layer, ones in zip(chain, everywhere[:-1], strict=True)]
    heard = [layer.backward(ones) for layer, ones in zip(chain, everywhere[1:], strict=True)]
    alive = [inputs & outputs for inputs, outputs in zip(fed[:-1], heard[1:], strict=True)]
    sums = zip(chain, there[:-1], back[1:], everywhere[:-1], everywhere[1:], strict=True)
    found = [(layer.between(reached, reaching), layer.between(*all_)) for layer, reached, reaching, *all_ in sums]
    return Connectivity(
        dead_neurons=sum((jnp.sum(~neurons, dtype=jnp.int32) for neurons in alive), jnp.int32(0)),
        effective_connections=sum(effective for effective, _ in found),
        collapsed_layers=sum(jnp.int32(connections == 0) for _, connections in found),
    )
