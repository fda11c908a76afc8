"""Optimisers and learning-rate schedules, built inside the traced program so that rates may differ by run."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_jax.config import RunConfig
from sparse_jax.topology.masks import Masks, mask_tree, name_of

Rate = Callable[[jax.Array], jax.Array]  # step -> learning rate


def _decays_at(config: RunConfig, steps: int) -> dict[int, float]:
    """Step -> factor; in a short training two decays may fall on one step."""
    decays = Counter(round(share * steps) for share in config.lr_decay_at)
    return {step: config.lr_decay_factor**count for step, count in decays.items()}


LR_SCHEDULES: dict[str, Callable[[RunConfig, jax.Array, int], Rate]] = {
    "constant": lambda config, rate, steps: lambda step: rate,
    "cosine": lambda config, rate, steps: lambda step: rate * (1 + jnp.cos(jnp.pi * step / steps)) / 2,
    "step": lambda config, rate, steps: optax.piecewise_constant_schedule(rate, _decays_at(config, steps)),
}


def _decays(params: Any) -> Any:
    """True for kernels: biases and the parameters of activation functions carry no weight decay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: name_of(path).endswith("kernel"), params)


def _l2(decay: jax.Array, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay, _decays), optimizer)


# name -> (config, learning rate, weight decay) -> optax transformation
OPTIMIZERS: dict[str, Callable[[RunConfig, Rate, jax.Array], optax.GradientTransformation]] = {
    "sgd": lambda config, rate, decay: _l2(decay, optax.sgd(rate)),
    "momentum": lambda config, rate, decay: _l2(decay, optax.sgd(rate, config.momentum)),
    "nesterov": lambda config, rate, decay: _l2(decay, optax.sgd(rate, config.momentum, nesterov=True)),
    "adam": lambda config, rate, decay: _l2(decay, optax.adam(rate)),
    "adamw": lambda config, rate, decay: optax.adamw(rate, weight_decay=decay, mask=_decays),
}


def make_optimizer(
    config: RunConfig, learning_rate: jax.Array, weight_decay: jax.Array, steps: int
) -> optax.GradientTransformation:
    """The optimiser of a run of `steps` steps; both rates float32[] and possibly traced."""
    rate = LR_SCHEDULES[config.lr_schedule](config, learning_rate, steps)
    return OPTIMIZERS[config.optimizer](config, rate, weight_decay)


def zero_slots(tx: optax.GradientTransformation, opt_state: Any, params: Any, kept: Masks) -> Any:
    """`opt_state` with exact zeros outside `kept` in every slot that has a parameter's shape.

    Works for any optax chain: optax knows which leaves of a state mirror the parameters.
    """
    return optax.tree.map_params(
        tx, lambda slot, keep: jnp.where(keep, slot, 0), opt_state, mask_tree(params, kept)
    )
