"""Input normalisation: fitted on the training part in NumPy, applied in the jitted step.

Every scheme is an affine map of the raw values, then for some a map of the whole sample:

    z = r((x − shift) · scale)

A statistic that does not vary has scale 1, so constant features become 0, never NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.errors import UserError, unknown

_TINY = np.finfo(np.float32).tiny
_ROWS = 4096  # float64 deviations are formed for this many examples at a time

Array = jax.Array | np.ndarray


class Normalization(NamedTuple):
    """A fitted affine map; float32 scalars, or arrays that broadcast to the shape of one example."""

    shift: Array
    scale: Array


class Scheme(NamedTuple):
    """How to find shift and the spread (1 / scale) of x[n, ...], and what follows in each sample."""

    shift_and_spread: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    per_sample: Callable[[jax.Array], jax.Array] | None


def fit(name: str, x_train: np.ndarray) -> Normalization:
    """Fit the scheme `name` to x_train[n, ...], uint8 or float32. Raises UserError if unknown."""
    shift, spread = _scheme(name).shift_and_spread(x_train)
    scale = 1 / np.where(spread >= _TINY, spread, 1)
    return Normalization(np.asarray(shift, np.float32), np.asarray(scale, np.float32))


def make_apply(name: str) -> Callable[[Normalization, jax.Array], jax.Array]:
    """The map (normalization, x[batch, ...]) -> float32[batch, ...] of the scheme `name`."""
    per_sample = _scheme(name).per_sample

    def apply_one(normalization, x):
        z = (x.astype(jnp.float32) - normalization.shift) * normalization.scale
        return z if per_sample is None else per_sample(z)

    return jax.vmap(apply_one, in_axes=(None, 0))


def inverse(name: str, normalization: Normalization, x: Array) -> jax.Array:
    """Raw values float32[batch, ...] of normalised ones. Raises UserError unless affine."""
    if _scheme(name).per_sample is not None:
        raise UserError(f"normalization {name!r} has no inverse: it forgets the scale of a sample")
    return jax.vmap(lambda z: z / normalization.scale + normalization.shift)(x)


def _scheme(name: str) -> Scheme:
    if name not in NORMALIZATIONS:
        raise unknown("normalization", name, NORMALIZATIONS)
    return NORMALIZATIONS[name]


def _identity(x):
    return np.zeros(()), np.ones(())


def _unit(x):
    """[0, 1] from the smallest and largest training value of all: 0..16, 0..255 and floats alike."""
    low, high = np.float64(x.min()), np.float64(x.max())
    return low, high - low


def _symmetric(x):
    """[-1, 1] from the same two values as `_unit`."""
    low, width = _unit(x)
    return low + width / 2, width / 2


def _zscore(x):
    """Mean 0 and standard deviation 1 of every feature over the training examples."""
    return _moments(x, axis=0)


def _channel_zscore(x):
    """One mean and one standard deviation of each channel, the last axis: of x[n, features] those of `_zscore`."""
    moments = _moments(x, axis=tuple(range(x.ndim - 1)))
    return tuple(moment.reshape((1,) * (x.ndim - 2) + moment.shape) for moment in moments)


def _global_zscore(x):
    """One mean and one standard deviation of all training values."""
    return _moments(x, axis=None)


def _moments(x, axis):
    mean = x.mean(axis, dtype=np.float64)  # exact where x is constant, whose variance is then 0
    chunks = (x[start : start + _ROWS] for start in range(0, len(x), _ROWS))
    variance = sum(np.square(chunk - mean).sum(axis) for chunk in chunks) * (mean.size / x.size)
    return mean, np.sqrt(variance)


def _standardize(x):
    deviation = x - x.mean()
    variance = jnp.square(deviation).mean()
    return jnp.where(x.max() > x.min(), deviation * jax.lax.rsqrt(jnp.maximum(variance, _TINY)), 0)


def _unit_norm(x):
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(), _TINY))


NORMALIZATIONS: dict[str, Scheme] = {
    "none": Scheme(_identity, None),
    "unit": Scheme(_unit, None),
    "symmetric": Scheme(_symmetric, None),
    "zscore": Scheme(_zscore, None),
    "channel_zscore": Scheme(_channel_zscore, None),
    "global_zscore": Scheme(_global_zscore, None),
    "per_sample": Scheme(_identity, _standardize),
    "l2": Scheme(_identity, _unit_norm),
}
