"""First weights drawn where the connections are: the bits of the dense kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.models.layers import INITIALIZERS
from sparse_jax.sparse.draws import DRAWS, bits_at, flat_position, weights_at


def everywhere(shape):
    return (jnp.asarray(side, jnp.int32) for side in np.divmod(np.arange(shape[0] * shape[1]), shape[1]))


def test_there_is_a_draw_for_every_initializer():
    assert DRAWS.keys() == INITIALIZERS.keys()
    assert all(DRAWS[name].both_fans == INITIALIZERS[name].both_fans for name in DRAWS)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (300, 100)])
def test_bits_are_those_of_the_whole_array(shape):
    key = jax.random.key(3)
    np.testing.assert_array_equal(bits_at(key, *everywhere(shape), shape), jax.random.bits(key, shape).ravel())


@pytest.mark.parametrize("name", DRAWS)
def test_weights_are_those_of_the_dense_kernel(name):
    key, shape = jax.random.key(7), (60, 40)
    drawn = jax.jit(lambda: weights_at(name, key, *everywhere(shape), shape))()
    np.testing.assert_array_equal(drawn, jax.jit(lambda: INITIALIZERS[name].draw(key, shape))().ravel())


def test_positions_beyond_32_bits_are_exact():
    rng, columns = np.random.default_rng(0), 2**31 - 1
    inputs, outputs = (rng.integers(0, side, 200) for side in (2**31 - 1, columns))
    high, low = flat_position(jnp.asarray(inputs, jnp.int32), jnp.asarray(outputs, jnp.int32), columns)
    found = [(int(upper) << 32) + int(lower) for upper, lower in zip(high, low, strict=True)]
    assert found == [int(i) * columns + int(o) for i, o in zip(inputs, outputs, strict=True)]
