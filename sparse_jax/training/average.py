"""The exponential moving average of a network's weights, by which a run with --ema is judged.

It takes in every leaf of the parameters and is zero outside the masks, as they are. The model's other variables, such
as batch statistics, are averages already: they are used as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_jax.topology.masks import Masks, mask_tree


def averaged_step(decay: float, step: jax.Array, average: Any, params: Any) -> Any:
    """a ← β_t a + (1 − β_t) w, after an optimiser step, with β_t = min(β, (1 + t) / (10 + t)).

    It starts at the initial weights, and the smaller β_t of the first steps, as TensorFlow's ExponentialMovingAverage
    has them, let it forget these soon.

    Args:
      decay: β in (0, 1).
      step: int32[], t, of the run, before it is made.
      average: of the structure of `params`; or None, which it stays.
      params: after the step.
    """
    if average is None:
        return None
    share = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, w: share * a + (1 - share) * w, average, params)


def averaged_update(average: Any, params: Any, survivors: Masks) -> Any:
    """The average after a topology update: survivors keep theirs, what is born starts at its weight, others are zero.

    Args:
      average: before the update, or None, which it stays.
      params: after the update, zero outside the new masks.
      survivors: the connections that were active before and were kept.
    """
    if average is None:
        return None
    return jax.tree.map(jnp.where, mask_tree(params, survivors), average, params)
