"""Laws of the data order: exact permutations, uniform, a function of (key, step) alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data, batch_at, batch_indices, permute
from sparse_jax.data.normalization import Normalization
from sparse_jax.errors import UserError

KEY = jax.random.key(0)


def orders(n, keys, seed=0):
    """int[keys, n]: the whole permutation of range(n) under each of many keys."""
    whole = jax.jit(jax.vmap(lambda key: permute(key, jnp.arange(n), n)))
    return np.asarray(whole(jax.random.split(jax.random.key(seed), keys)))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 256, 257, 54_000])
def test_permute_is_a_bijection(n):
    order = orders(n, keys=20)
    assert len({tuple(one) for one in order}) == 20 or n < 10
    assert order.dtype == np.int32
    assert (np.sort(order) == np.arange(n)).all()


def test_permute_is_pointwise_under_every_transformation():
    n, keys = 77, jax.random.split(KEY, 3)
    apply = jax.jit(lambda key, index: permute(key, index, n))
    whole = jnp.stack([apply(key, jnp.arange(n)) for key in keys])
    mapped = jax.jit(lambda: lax.map(lambda index: permute(keys[0], index, n), jnp.arange(n)))
    assert jnp.array_equal(whole[0], mapped())
    assert jnp.array_equal(whole, jax.vmap(apply, in_axes=(0, None))(keys, jnp.arange(n)))
    beyond = apply(keys[0], jnp.array([[n, -1], [2 * n + 5, 5]]))
    assert jnp.array_equal(beyond, whole[0][jnp.array([[0, n - 1], [5, 5]])])


def chi_square_deviations(table, expected, freedom):
    """(χ² − its mean) in its standard deviations; the χ² of `freedom` degrees is near normal."""
    return (np.square(table - expected).sum() / expected - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize(("n", "keys"), [(10, 40_000), (64, 40_000), (2000, 1_000)])
def test_every_value_is_equally_likely_everywhere_and_every_pair_in_any_two_places(n, keys):
    order = orders(n, keys)
    at_position = np.zeros((n, n))
    np.add.at(at_position, (np.broadcast_to(np.arange(n), order.shape), order), 1)
    assert abs(chi_square_deviations(at_position, keys / n, (n - 1) ** 2)) < 5
    different, pairs = ~np.eye(n, dtype=bool), n * (n - 1)
    for place in (1, n // 2, n - 1) if keys > pairs else ():
        together = np.zeros((n, n))
        np.add.at(together, (order[:, 0], order[:, place]), 1)
        assert abs(chi_square_deviations(together[different], keys / pairs, pairs - 1)) < 5


@pytest.mark.parametrize(("n", "batch_size"), [(103, 10), (7, 7)])
def test_an_epoch_repeats_nothing_and_epochs_differ(n, batch_size):
    steps = n // batch_size
    at = jax.jit(jax.vmap(lambda step: batch_indices(KEY, step, n, batch_size)))
    epochs = np.asarray(at(jnp.arange(40 * steps))).reshape(40, -1)
    assert epochs.min() >= 0
    assert epochs.max() < n
    assert all(np.unique(epoch).size == steps * batch_size for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 30
    assert np.unique(epochs).size == n  # the remainder is another one each epoch


def test_batch_at_is_a_pure_function_of_the_step():
    n, batch_size = 50, 8
    x = jnp.arange(80 * 6, dtype=jnp.uint8).reshape(80, 3, 2)
    data = Data(x, jnp.arange(80, dtype=jnp.int32), Normalization(jnp.zeros(()), jnp.ones(())), levels_of(x))

    @jax.jit
    def scanned(start):
        steps = start + jnp.arange(20)
        return lax.scan(lambda _, s: (None, batch_at(data, KEY, s, n=n, batch_size=batch_size)), None, steps)[1]

    xs, ys = scanned(0)
    assert (xs.shape, xs.dtype) == ((20, 8, 3, 2), jnp.uint8)
    assert jnp.array_equal(xs, x[ys])
    assert ys.max() < n
    resumed = scanned(7)
    assert jnp.array_equal(xs[7:], resumed[0][:13])
    assert jnp.array_equal(ys[7:], resumed[1][:13])


@pytest.mark.parametrize("batch_size", [0, 83])
def test_a_batch_larger_than_the_training_part_is_refused(batch_size):
    with pytest.raises(UserError, match=f"batch_size {batch_size} is outside 1..82"):
        batch_indices(KEY, 0, 82, batch_size)
