"""The drop fraction over time, as a factor of its initial value."""

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


DROP_SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "linear": linear}
