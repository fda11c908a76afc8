"""First weights of connections wherever they are: those that a dense kernel would have there, without the others.

JAX's threefry generator makes the 32 bits of entry p of an array from the key and p alone (the default,
`jax_threefry_partitionable`). So a connection begins with the same weight in either execution, bit for bit. What
`jax.nn.initializers` makes of the bits is repeated here; a test holds both equal.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32
from jax.scipy.special import erf, erfinv


class Draw(NamedTuple):
    """How a weight is drawn: of variance scale / fan."""

    of_bits: Callable[[jax.Array], jax.Array]  # uint32 -> float32 of variance 1
    scale: float
    both_fans: bool  # the fan is (fan_in + fan_out) / 2, else fan_in


def _unit(bits: jax.Array, low: float | jax.Array, high: float | jax.Array) -> jax.Array:
    """Uniform in [low, high) from the 23 highest bits, as `jax.random.uniform` has it."""
    fraction = jax.lax.bitcast_convert_type((bits >> 9) | jnp.uint32(0x3F800000), jnp.float32) - 1
    low, high = jnp.float32(low), jnp.float32(high)
    return jnp.maximum(low, fraction * (high - low) + low)


def _uniform(bits: jax.Array, variance: jax.Array) -> jax.Array:
    return _unit(bits, -1, 1) * jnp.sqrt(3 * variance)


def _truncated_normal(bits: jax.Array, variance: jax.Array) -> jax.Array:
    """Normal within two standard deviations, whose loss of variance is made up for."""
    edge, sqrt2 = jnp.float32(2), jnp.float32(math.sqrt(2))
    bound = erf(edge / sqrt2)
    normal = sqrt2 * erfinv(_unit(bits, -bound, bound))
    inside = jnp.nextafter(edge, jnp.float32(0))
    return jnp.clip(normal, -inside, inside) * (jnp.sqrt(variance) / jnp.float32(0.87962566103423978))


DRAWS: dict[str, Draw] = {
    "glorot_uniform": Draw(_uniform, 1.0, True),
    "glorot_normal": Draw(_truncated_normal, 1.0, True),
    "he_uniform": Draw(_uniform, 2.0, False),
    "he_normal": Draw(_truncated_normal, 2.0, False),
    "lecun_uniform": Draw(_uniform, 1.0, False),
    "lecun_normal": Draw(_truncated_normal, 1.0, False),
}


def flat_position(inputs: jax.Array, outputs: jax.Array, columns: int) -> tuple[jax.Array, jax.Array]:
    """inputs · columns + outputs as the high and the low 32 bits of a 64-bit number."""
    a, b = inputs.astype(jnp.uint32), jnp.uint32(columns)
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    low, cross, other = a_low * b_low, a_low * b_high, a_high * b_low
    middle = (low >> 16) + (cross & 0xFFFF) + (other & 0xFFFF)
    product = (low & 0xFFFF) | (middle << 16)
    total = product + outputs.astype(jnp.uint32)
    carried = a_high * b_high + (cross >> 16) + (other >> 16) + (middle >> 16)
    return carried + (total < product), total


def bits_at(key: jax.Array, inputs: jax.Array, outputs: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """uint32[n], the entries (inputs, outputs) of `jax.random.bits(key, shape)`."""
    high, low = flat_position(inputs, outputs, shape[1])
    mixed = threefry_2x32(jax.random.key_data(key), jnp.concatenate([high, low]))
    return mixed[: low.size] ^ mixed[low.size :]


def weights_at(
    initializer: str, key: jax.Array, inputs: jax.Array, outputs: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """float32[n], the entries (inputs, outputs) of a dense kernel of `shape`.

    Args:
      initializer: a key of DRAWS.
      key: the typed key that the kernel would be drawn with.
      inputs, outputs: int32[n].
      shape: (I, O) of the layer.
    """
    draw = DRAWS[initializer]
    fan = sum(shape) / 2 if draw.both_fans else shape[0]
    return draw.of_bits(bits_at(key, inputs, outputs, shape), jnp.float32(draw.scale / fan))
