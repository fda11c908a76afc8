"""Optimisers and learning-rate schedules, built inside the traced program so that rates may differ by run."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparse_jax.config import RunConfig
from sparse_jax.topology.masks import Masks, mask_tree, name_of
from sparse_jax.training.problem import Problem
from sparse_jax.training.timeline import last_update, period, rate_steps

Factor = Callable[[jax.Array], jax.Array]  # step -> factor of the learning rate


def _cosine(config: RunConfig, steps: int) -> Factor:
    return lambda step: (1 + jnp.cos(jnp.pi * step / steps)) / 2


def _step(config: RunConfig, steps: int) -> Factor:
    """The decay factor once for every share of training that is over."""
    decays = jnp.array([round(share * steps) for share in config.lr_decay_at])
    return lambda step: config.lr_decay_factor ** jnp.sum(step >= decays)


# name -> (config, steps of the training) -> factor of the learning rate by step
LR_SCHEDULES: dict[str, Callable[[RunConfig, int], Factor]] = {
    "constant": lambda config, steps: jnp.ones_like,
    "cosine": _cosine,
    "linear": lambda config, steps: lambda step: 1 - step / steps,
    "step": _step,
}


def rate_factor(config: RunConfig, problem: Problem, step: jax.Array) -> jax.Array:
    """The factor of the learning rate at a step of the run: that of its schedule times that of the warm-up.

        s(t) min(1, (t + 1) / W),   W the steps of the warm-up, and t of the course
    """
    at = step if config.levels is None else _clock(config, problem, step)
    factor = LR_SCHEDULES[config.lr_schedule](config, rate_steps(config, problem))(at)
    if not config.warmup_epochs:
        return factor
    return factor * jnp.minimum(1, (at + 1) / (config.warmup_epochs * problem.steps_per_epoch))


def _clock(config: RunConfig, problem: Problem, step: jax.Array) -> jax.Array:
    """Where in the course of the learning rate a method that rewinds is, which goes through it again.

    With T steps to the first pruning, k the step gone back to, and T − k steps a level, the course of T steps is
    followed from 0, and from k after every pruning.
    """
    since = (step - config.interval) % period(config)
    since = jnp.where(step >= last_update(config, problem), step - last_update(config, problem), since)
    return jnp.where(step < config.interval, step, jnp.minimum(config.rewind_to + since, config.interval))


def _decays(params: Any) -> Any:
    """True for kernels: biases and the parameters of activation functions carry no weight decay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: name_of(path).endswith("kernel"), params)


def _l2(decay: jax.Array, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(decay, _decays), optimizer)


# name -> (config, learning rate, weight decay) -> optax transformation
OPTIMIZERS: dict[str, Callable[[RunConfig, jax.Array, jax.Array], optax.GradientTransformation]] = {
    "sgd": lambda config, rate, decay: _l2(decay, optax.sgd(rate)),
    "momentum": lambda config, rate, decay: _l2(decay, optax.sgd(rate, config.momentum)),
    "nesterov": lambda config, rate, decay: _l2(decay, optax.sgd(rate, config.momentum, nesterov=True)),
    "adam": lambda config, rate, decay: _l2(decay, optax.adam(rate)),
    "adamw": lambda config, rate, decay: optax.adamw(rate, weight_decay=decay, mask=_decays),
}


def make_optimizer(config: RunConfig, rate: jax.Array, decay: jax.Array) -> optax.GradientTransformation:
    """The optimiser of a run at one step; learning rate and weight decay float32[] and possibly traced.

    The schedule stays outside, because optax would count optimiser steps only. What is clipped is the norm over all
    leaves, g ← g min(1, c / ‖g‖) (Pascanu et al. 2013, arXiv:1211.5063), before L2 is added to g.
    """
    optimizer = OPTIMIZERS[config.optimizer](config, rate, decay)
    if not config.gradient_clip:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.gradient_clip), optimizer)


def one_of(optimizers: Sequence[optax.GradientTransformation], index: jax.Array) -> optax.GradientTransformation:
    """The optimiser of an index, int32[], of several; its state has the slots of all, and those of the others stay."""

    def init(params: Any) -> tuple:
        return tuple(one.init(params) for one in optimizers)

    def update(grads: Any, state: tuple, params: Any = None) -> tuple[Any, tuple]:
        def branch(i: int) -> Callable[[Any, tuple, Any], tuple[Any, tuple]]:
            def updated(grads, state, params):
                steps, own = optimizers[i].update(grads, state[i], params)
                return steps, (*state[:i], own, *state[i + 1 :])

            return updated

        return jax.lax.switch(index, [branch(i) for i in range(len(optimizers))], grads, state, params)

    return optax.GradientTransformation(init, update)


def zero_slots(tx: optax.GradientTransformation, opt_state: Any, params: Any, kept: Masks) -> Any:
    """`opt_state` with exact zeros outside `kept` in every slot that has a parameter's shape.

    Works for any optax chain: optax knows which leaves of a state mirror the parameters. Slots of another shape, such
    as the factors of adafactor, stay as they are, and so do the gaps that `optax.masked` leaves.
    """

    def zero(slot, keep):
        if keep is True or isinstance(slot, optax.MaskedNode) or slot.shape != keep.shape:
            return slot
        return jnp.where(keep, slot, 0)

    masks = mask_tree(params, kept)
    return optax.tree.map_params(tx, zero, opt_state, masks, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
