"""The exponential moving average of a network's weights, by which a run with --ema is judged.

It takes in every leaf of the parameters and is zero outside the masks, as they are. The model's other variables, such
as batch statistics, are averages already: they are used as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp

from sparse_jax.topology.masks import Masks, mask_tree


def averaged_step(decay: float, average: Any, params: Any) -> Any:
    """a ← β a + (1 − β) w, after an optimiser step.

    It starts at the initial weights, a₀ = w₀, so that no bias is to be corrected: as the teacher of Tarvainen and
    Valpola 2017 (arXiv:1703.01780).

    Args:
      decay: β in (0, 1).
      average: of the structure of `params`; or None, which it stays.
      params: after the step.
    """
    if average is None:
        return None
    return jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, average, params)


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
