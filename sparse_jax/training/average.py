"""The exponential moving average of a network, by which a run with --ema is judged.

It takes in every leaf of the parameters, and is zero outside the masks as they are, and the model's other variables:
averaged weights have other batch statistics than the present ones. Where connections are is not averaged, but copied.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.topology.masks import Masks, mask_tree


class Average(NamedTuple):
    """What is averaged."""

    params: Any
    model_state: Any


def averaged_step(decay: float, step: jax.Array, average: Average | None, now: Average) -> Average | None:
    """a ← β_t a + (1 − β_t) w, after an optimiser step, with β_t = min(β, (1 + t) / (10 + t)).

    It starts at the initial weights, and the smaller β_t of the first steps, as TensorFlow's ExponentialMovingAverage
    has them, let it forget these soon.

    Args:
      decay: β in (0, 1).
      step: int32[], t, of the run, before it is made.
      average: before the step, or None, which it stays.
      now: after the step.
    """
    if average is None:
        return None
    share = jnp.minimum(decay, (1 + step) / (10 + step))

    def mixed(a, w):
        return share * a + (1 - share) * w if jnp.issubdtype(w.dtype, jnp.inexact) else w

    return jax.tree.map(mixed, average, now)


def averaged_update(average: Average | None, params: Any, survivors: Masks) -> Average | None:
    """The average after a topology update: survivors keep theirs, what is born starts at its weight, others are zero.

    Args:
      average: before the update, or None, which it stays.
      params: after the update, zero outside the new masks.
      survivors: the connections that were active before and were kept.
    """
    if average is None:
        return None
    params = jax.tree.map(jnp.where, mask_tree(params, survivors), average.params, params)
    return average._replace(params=params)
