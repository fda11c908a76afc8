"""Courses over training from 1 towards 0: of the drop fraction, and of the connections above the final count."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array], jax.Array]  # progress in [0, 1] -> factor in [0, 1]


def constant(progress: jax.Array) -> jax.Array:
    """1 (SET)."""
    return jnp.ones_like(progress)


def cosine(progress: jax.Array) -> jax.Array:
    """(1 + cos πp) / 2 (RigL; Dettmers and Zettlemoyer 2019)."""
    return (1 + jnp.cos(jnp.pi * progress)) / 2


def linear(progress: jax.Array) -> jax.Array:
    """1 − p."""
    return 1 - progress


def cubic(progress: jax.Array) -> jax.Array:
    """(1 − p)³ (Zhu and Gupta 2017, arXiv:1710.01878, eq. 1)."""
    return (1 - progress) ** 3


DROP_SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "linear": linear}
DENSITY_SCHEDULES: dict[str, Schedule] = {"cubic": cubic, "linear": linear}
