"""Courses over training: of the drop fraction, and of the connections above the final count."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Course(NamedTuple):
    """Where in training an update stands."""

    training: jax.Array  # float32[], 0 at the first step and 1 where updates stop
    updates: jax.Array  # float32[], 0 at the first step and 1 at the last update
    left: jax.Array  # int32[], updates that come after this one


Rates = Mapping[str, jax.Array]  # float32[] by name
DropSchedule = Callable[[jax.Array, Rates], jax.Array]  # progress in [0, 1] -> factor in [0, 1]
DensitySchedule = Callable[[Course, jax.Array], jax.Array]  # with final / start -> share of start − final still there

DROP_SCHEDULES: dict[str, DropSchedule] = {
    "constant": lambda progress, rates: jnp.ones_like(progress),  # SET
    "cosine": lambda progress, rates: (1 + jnp.cos(jnp.pi * progress)) / 2,  # RigL; Dettmers and Zettlemoyer 2019
    "linear": lambda progress, rates: 1 - progress,
    "inverse_power": lambda progress, rates: (1 - progress) ** rates["drop_power"],  # Evci et al. 2020, appendix
}


def _sigmoid(course: Course, ratio: jax.Array) -> jax.Array:
    """σ(10 (1/2 − p)), shifted and scaled to fall from 1 to 0 [ours]."""
    low, high = jax.nn.sigmoid(jnp.float32(-5)), jax.nn.sigmoid(jnp.float32(5))
    return (jax.nn.sigmoid(10 * (0.5 - course.updates)) - low) / (high - low)


def _levels(course: Course, ratio: jax.Array) -> jax.Array:
    """Every update keeps the same share of what is there: n(p) = start (final / start)^p (Frankle and Carbin 2019)."""
    share = (ratio**course.updates - ratio) / jnp.maximum(1 - ratio, jnp.finfo(jnp.float32).tiny)
    return jnp.where(course.left == 0, 0, share)


DENSITY_SCHEDULES: dict[str, DensitySchedule] = {
    "constant": lambda course, ratio: (course.left > 0).astype(jnp.float32),  # one step, at the last update
    "cubic": lambda course, ratio: (1 - course.updates) ** 3,  # Zhu and Gupta 2017, arXiv:1710.01878, eq. 1
    "linear": lambda course, ratio: 1 - course.updates,
    "sigmoid": _sigmoid,
    "cyclic": lambda course, ratio: (course.left % 2).astype(jnp.float32),  # AC/DC: dense and sparse in turn
    "levels": _levels,
}
