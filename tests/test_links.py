"""The views of the connections of a sparse layer."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_jax.sparse.links import Links, inputs_of_slots, make_links, with_capacity
from tests.sparse_layer import Layer, each_formulation, needs_kernel


@needs_kernel
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 8), st.integers(0, 8), st.floats(0, 1), st.sampled_from([0, 1, 5]))
def test_formulations_agree(n_in, n_out, density, spare):
    layer = Layer(n_in, n_out, int(density * n_in * n_out), 1, spare)
    links, again = layer.links("kernel"), layer.links("jax")
    for one, other in zip(links, again, strict=True):
        assert one.dtype == other.dtype == jnp.int32
        np.testing.assert_array_equal(one, other)


@each_formulation
def test_a_small_layer(formulation):
    """Of two inputs and three outputs, in full."""
    inputs, outputs = jnp.array([0, 1, 1, 9]), jnp.array([2, 0, 2, -1])
    links = make_links(inputs, outputs, 3, (2, 3), formulation)
    assert links.capacity == 4
    assert links.shape == (2, 3)
    expected = Links([2, 0, 2, 3], [0, 1, 3], [1, 0, 1, 2], [0, 1, 1, 3], [1, 0, 2, 3])
    for name in Links._fields:
        np.testing.assert_array_equal(getattr(links, name), getattr(expected, name), name)
    np.testing.assert_array_equal(inputs_of_slots(links), [0, 1, 1, 2])


def test_wide_layers():
    """Whose outputs times slots need more than 31 bits: they are sorted otherwise."""
    layer = Layer(30, 11000, 200_000, 1)
    links = layer.links("jax")
    slots = np.argsort(layer.outputs, kind="stable")
    np.testing.assert_array_equal(links.slots, slots)
    np.testing.assert_array_equal(links.inputs, layer.inputs[slots])
    np.testing.assert_array_equal(links.output_starts, np.searchsorted(layer.outputs[slots], np.arange(11001)))


def test_more_slots_are_those_of_a_layer_that_has_them():
    layer = Layer(7, 5, 12, 1)
    wide = make_links(*(np.pad(side, (0, 4)) for side in (layer.inputs, layer.outputs)), 12, layer.shape)
    for one, other in zip(with_capacity(layer.links(), 16), wide, strict=True):
        np.testing.assert_array_equal(one, other)


def test_outputs_times_slots_at_the_limit_of_an_integer():
    """(O + 1) times the slots is 2^31 exactly, with an empty slot: O times the slots and one more would overflow."""
    layer = Layer(6, 2**15 - 1, 2**16 - 1, 1, spare=1)
    links, used = layer.links("jax"), slice(2**16 - 1)
    assert (layer.shape[1] + 1) * links.capacity == 2**31
    np.testing.assert_array_equal(links.slots[used], np.argsort(layer.outputs[used], kind="stable"))
    assert links.slots[-1] == 2**16 - 1
