"""Theoretical floating-point operations of training, from the connections of each layer.

As Evci et al. 2020 count them (arXiv:1911.11134, appendix H): a multiplication and an addition are two; a step is three
products with the kernels, forward, for the gradient by the inputs and for that by the weights. Biases, normalisation,
activation functions, the mixing of an attention, the optimiser, the choice of connections, first masks and evaluations
are left out. All is per example; a training on batches of b takes

    b (Σ step over the optimiser steps made + Σ update over the topology updates)

Where execution is masked the operations of the dense network are done, whatever is counted here.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from sparse_jax.config import RunConfig
from sparse_jax.models.shapes import Shapes

# setting -> its values by which an update looks at gradients, or a step keeps their mean; a test holds them equal to
# what the rules need
_OF_UNUSED = {"grow_score": {"gradient"}, "birth": {"gradient"}}  # also of connections that are not in use
_OF_USED = {"drop_score": {"saliency", "magnitude_and_gradient"}, "scope": {"gradient"}}
_MEAN = {"grow_score": {"momentum"}, "scope": {"momentum"}}  # of all, at every step


class Products(NamedTuple):
    """FLOPs per example of one product with all kernels, by the connections that take part."""

    used: int  # f_S: those in use
    trained: int  # those that a step trains: the same, or more (Top-KAST)
    dense: int  # f_D: all


def product(kernels: Shapes, applications: Mapping[str, int], connections: Mapping[str, int]) -> int:
    """FLOPs per example of one product with all kernels; with the connections in use, of a forward pass.

        2 Σ_l n_l a_l

    Args:
      kernels: shapes of all kernels.
      applications: a_l, how many times an example is multiplied by each (`Outline.applications`).
      connections: n_l by layer; a layer that is not among them has all its connections.

    Raises:
      KeyError: for connections of a layer that the network does not have.
    """
    counts = {name: math.prod(shape) for name, shape in kernels.items()} | dict(connections)
    return 2 * sum(int(n) * applications[name] for name, n in counts.items())


def products(
    kernels: Shapes, applications: Mapping[str, int], used: Mapping[str, int], trained: Mapping[str, int]
) -> Products:
    """The products of a network as it stands between two updates.

    Args:
      kernels, applications: as `product` has them.
      used: connections by layer of the masks.
      trained: of `Topology.trained`, which are those of the masks but for Top-KAST.
    """
    return Products(*(product(kernels, applications, connections) for connections in (used, trained, {})))


def step(config: RunConfig, cost: Products) -> int:
    """FLOPs per example of an optimiser step: 3 f_S; 2 f_S + f_D where it keeps the mean of dense gradients (SNFS).

    The gradient by the weights is that of the trained connections. Schedules are counted by the connections that are
    there: dense phases and networks as dense ones.
    """
    return 2 * cost.used + (cost.dense if _chosen(config, _MEAN) else cost.trained)


def update(config: RunConfig, cost: Products) -> int:
    """FLOPs per example of a topology update: those of the pass by which it gets the gradients that it looks at.

    2 f_S + f_D for the gradients of connections that are not in use (RigL), 3 f_S for others (MEST), 0 without. The
    pass is the update's own, as the studies make it, also where the update does not take the place of a step.

    Args:
      config: resolved.
      cost: of the network before the update.
    """
    if _chosen(config, _OF_UNUSED):
        return 2 * cost.used + cost.dense
    return 3 * cost.used if _chosen(config, _OF_USED) else 0


def share_of_dense(flops: float, dense: int, examples: int) -> float:
    """Operations of a training as a share of those of the dense network's.

    Args:
      flops: of the training.
      dense: f_D.
      examples: that the dense network is trained on, steps times batch size.
    """
    return flops / (3 * dense * examples)


def _chosen(config: RunConfig, values: Mapping[str, set[str]]) -> bool:
    """Whether a setting of the run, resolved, has one of its `values`."""
    return any(getattr(config, setting) in of_setting for setting, of_setting in values.items())
