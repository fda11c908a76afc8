"""The methods by name: each a recipe of drop, grow, schedule and count, from its paper."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.topology import criteria
from sparse_jax.topology.evolution import Rule


class Settings(NamedTuple):
    """What a method may be told; each uses what concerns it."""

    drop_fraction: Callable[[jax.Array], jax.Array]  # progress -> fraction
    density: Callable[[jax.Array], jax.Array]  # progress -> share of start − final still there
    shrink_rate: jax.Array  # float32[], of accset


def set_magnitude(settings: Settings) -> Rule:
    """SET as most ports have it: drop the smallest |w| of the layer, grow at random."""
    return Rule(
        drop=criteria.magnitude,
        grow=criteria.random,
        drop_fraction=settings.drop_fraction,
        groups=criteria.whole,
        count="constant",
        density=settings.density,
        gain=lambda accuracy, best: jnp.zeros_like(accuracy),
        needs_gradient=False,
        update="after_step",
    )


def set_per_sign(settings: Settings) -> Rule:
    """SET (Mocanu et al. 2018): drop the smallest positive and, separately, the largest negative weights.

    The reference drops every weight that is exactly zero besides; here zeros count as positive and go first.
    """
    return set_magnitude(settings)._replace(groups=criteria.by_sign)


def static(settings: Settings) -> Rule:
    """The initial topology for good: SET with a drop fraction of 0 (FixProb in Mocanu et al. 2018)."""
    return set_magnitude(settings)._replace(drop_fraction=jnp.zeros_like, update="never")


def dense(settings: Settings) -> Rule:
    """No masks: every connection is trained."""
    return static(settings)._replace(masked=False)


def rigl(settings: Settings) -> Rule:
    """RigL (Evci et al. 2020): drop the smallest |w|, grow the largest |gradient|; no optimiser step."""
    return set_magnitude(settings)._replace(
        grow=criteria.gradient, needs_gradient=True, update="instead_of_step"
    )


def itop_random(settings: Settings) -> Rule:
    """SET-ITOP (Liu et al. 2021, arXiv:2102.02887): as set_magnitude, with long intervals."""
    return set_magnitude(settings)


def itop_gradient(settings: Settings) -> Rule:
    """RigL-ITOP (Liu et al. 2021): as RigL, with long intervals, and the optimiser steps all the same."""
    return rigl(settings)._replace(update="after_step")


def itop_unexplored(settings: Settings) -> Rule:
    """ITOP that grows what was never active first, at random among it (Liu et al. 2021, appendix)."""
    return set_magnitude(settings)._replace(grow=criteria.unexplored)


def gmp(settings: Settings) -> Rule:
    """Gradual magnitude pruning (Zhu and Gupta 2017): keep the largest |w|, as many as the schedule says."""
    return set_magnitude(settings)._replace(drop_fraction=jnp.zeros_like, count="schedule", grows=False)


def granet(settings: Settings) -> Rule:
    """GraNet (Liu et al. 2021, arXiv:2106.10404): prune to the schedule, then move a share as RigL does.

    The optimiser steps all the same, as in the reference code.
    """
    return itop_gradient(settings)._replace(count="schedule")


def accset(settings: Settings) -> Rule:
    """AccSET (Lapshyna 2020, abstract only): SET that regrows fewer links than it dropped as accuracy rises.

        n_regrown = n_dropped − [ζ_acc n g],   g = max(0, accuracy − best accuracy at earlier updates)

    clipped to [0, n_dropped], with a floor for n; [ours]. The first update, which has no earlier one, gains nothing.
    """

    def gain(accuracy, best):
        return settings.shrink_rate * jnp.where(best < 0, 0, jnp.maximum(0, accuracy - best))

    return set_per_sign(settings)._replace(count="accuracy", gain=gain)


def accset_level(settings: Settings) -> Rule:
    """AccSET with g = accuracy: every update shrinks the network [ours]."""
    return set_per_sign(settings)._replace(
        count="accuracy", gain=lambda accuracy, best: settings.shrink_rate * accuracy
    )


METHODS: dict[str, Callable[[Settings], Rule]] = {
    "dense": dense,
    "static": static,
    "set": set_per_sign,
    "set_magnitude": set_magnitude,
    "accset": accset,
    "accset_level": accset_level,
    "rigl": rigl,
    "itop_random": itop_random,
    "itop_gradient": itop_gradient,
    "itop_unexplored": itop_unexplored,
    "gmp": gmp,
    "granet": granet,
}
