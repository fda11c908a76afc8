"""The methods by name: what they are beyond their choice of scores, schedules and scope.

Those choices are settings (`recipes.py` has each method's); what stands here is what makes a method another
method: who competes, how much goes, what the counts follow, what is trained.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.topology import criteria
from sparse_jax.topology.patterns import Pattern
from sparse_jax.topology.rule import Rule
from sparse_jax.topology.schedules import DENSITY_SCHEDULES, DROP_SCHEDULES


class Settings(NamedTuple):
    """What a method may be told; each uses what concerns it."""

    outputs: str  # the layer of the network's outputs
    rates: Mapping[str, jax.Array]  # float32[] by name: drop_fraction, shrink_rate, temperature, ...
    drop_score: str = "magnitude"
    grow_score: str = "random"
    drop_schedule: str = "constant"
    density_schedule: str = "constant"
    scope: str = "layer"
    structure: Pattern = Pattern()
    regrow_dropped: bool = True
    birth: str = "zero"
    update_step: str = "take"
    ablation: float = 0.0
    importance_pruning: float = 0.0


def set_magnitude(settings: Settings) -> Rule:
    """Drop a fraction of the layer, the lowest scores; grow as many, the highest ones.

    SET as most ports have it; with other scores RigL, ITOP, MEST, CHTs; with another scope SNFS; with constant
    fan-in and ablation SRigL.
    """
    course = DROP_SCHEDULES[settings.drop_schedule]
    return Rule(
        drop=criteria.DROP[settings.drop_score],
        grow=criteria.GROW[settings.grow_score],
        drop_fraction=lambda progress: settings.rates["drop_fraction"] * course(progress, settings.rates),
        groups=criteria.whole,
        remove="fraction",
        count="constant",
        density=DENSITY_SCHEDULES[settings.density_schedule],
        gain=lambda accuracy, best: jnp.zeros_like(accuracy),
        scope=settings.scope,
        pattern=settings.structure,
        regrow=settings.regrow_dropped,
        birth=settings.birth,
        update={"take": "after_step", "skip": "instead_of_step"}[settings.update_step],
        rates=settings.rates,
        outputs=settings.outputs,
        ablation=settings.ablation,
        importance_pruning=settings.importance_pruning,
    )


def set_per_sign(settings: Settings) -> Rule:
    """SET (Mocanu et al. 2018): drop the smallest positive and, separately, the largest negative weights.

    The reference drops every weight that is exactly zero besides; here zeros count as positive and go first.
    """
    return set_magnitude(settings)._replace(groups=criteria.by_sign)


def _moving_nothing(settings: Settings) -> Rule:
    return set_magnitude(settings)._replace(remove="none")


def static(settings: Settings) -> Rule:
    """The initial topology for good (FixProb in Mocanu et al. 2018)."""
    return _moving_nothing(settings)._replace(update="never")


def dense(settings: Settings) -> Rule:
    """No masks: every connection is trained."""
    return static(settings)._replace(masked=False)


def gmp(settings: Settings) -> Rule:
    """Gradual magnitude pruning (Zhu and Gupta 2017): keep the largest |w|, as many as the schedule says."""
    return _moving_nothing(settings)._replace(count="schedule", grows=False)


def granet(settings: Settings) -> Rule:
    """GraNet (Liu et al. 2021, arXiv:2106.10404): prune to the schedule, then move a share as RigL does."""
    return set_magnitude(settings)._replace(count="schedule")


def ac_dc(settings: Settings) -> Rule:
    """AC/DC (Peste et al. 2021, arXiv:2106.12379): all connections and the largest |w| in turn, sparse at the end."""
    return _moving_nothing(settings)._replace(count="schedule")


def accset(settings: Settings) -> Rule:
    """AccSET (Lapshyna 2020, abstract only): SET that regrows fewer links than it dropped as accuracy rises.

        n_regrown = n_dropped − [ζ_acc n g],   g = max(0, accuracy − best accuracy at earlier updates)

    clipped to [0, n_dropped], with a floor for n; [ours]. The first update, which has no earlier one, gains nothing.
    """

    def gain(accuracy, best):
        return settings.rates["shrink_rate"] * jnp.where(best < 0, 0, jnp.maximum(0, accuracy - best))

    return set_per_sign(settings)._replace(count="accuracy", gain=gain)


def accset_level(settings: Settings) -> Rule:
    """AccSET with g = accuracy: every update shrinks the network [ours]."""
    gain = settings.rates["shrink_rate"]
    return set_per_sign(settings)._replace(count="accuracy", gain=lambda accuracy, best: gain * accuracy)


def mest_soft(settings: Settings) -> Rule:
    """MEST with its soft memory bound (Yuan et al. 2021, arXiv:2110.14032): grow first, drop an interval later."""
    return _moving_nothing(settings)._replace(count="extra")


def deepr(settings: Settings) -> Rule:
    """Deep Rewiring (Bellec et al. 2018, arXiv:1711.05136): a connection whose weight changes its sign is dropped."""
    return _moving_nothing(settings)._replace(drop=criteria.SIGNED_WEIGHT, remove="below_zero", walks=True)


def dsr(settings: Settings) -> Rule:
    """Dynamic sparse reparameterisation (Mostafa and Wang 2019, arXiv:1902.05967): one threshold for all layers."""
    return set_magnitude(settings)._replace(drop=criteria.MAGNITUDE, remove="below_threshold")


def top_kast(settings: Settings) -> Rule:
    """Top-KAST (Jayakumar et al. 2020, arXiv:2106.03517): use the largest |w|, train more than these."""
    rule = _moving_nothing(settings)
    return rule._replace(grow=criteria.MAGNITUDE, remove="all", backward=True)


def lottery_ticket(settings: Settings) -> Rule:
    """Iterative magnitude pruning with rewinding (Frankle and Carbin 2019; Frankle et al. 2020, arXiv:1912.05671)."""
    return gmp(settings)._replace(rewind="weights")


def lr_rewinding(settings: Settings) -> Rule:
    """Iterative magnitude pruning that goes back to an earlier learning rate only (Renda et al. 2020)."""
    return gmp(settings)._replace(rewind="rate")


METHODS: dict[str, Callable[[Settings], Rule]] = {
    "dense": dense,
    "static": static,
    "set": set_per_sign,
    "set_magnitude": set_magnitude,
    "accset": accset,
    "accset_level": accset_level,
    "rigl": set_magnitude,
    "snfs": set_magnitude,
    "deepr": deepr,
    "dsr": dsr,
    "itop_random": set_magnitude,
    "itop_gradient": set_magnitude,
    "itop_unexplored": set_magnitude,
    "mest": set_magnitude,
    "mest_soft": mest_soft,
    "gmp": gmp,
    "granet": granet,
    "top_kast": top_kast,
    "ac_dc": ac_dc,
    "srigl": set_magnitude,
    "chts": set_magnitude,
    "lottery_ticket": lottery_ticket,
    "lr_rewinding": lr_rewinding,
}
