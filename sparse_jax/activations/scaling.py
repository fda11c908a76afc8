"""α h(β x) around any activation function h (SAFS: Loni et al. 2023, arXiv:2305.10964)."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax

from sparse_jax.activations.fixed import Activation
from sparse_jax.activations.learnable import per_neuron

Make = Callable[[str], Activation]  # name of the module, if it is one -> h


class Scaling(NamedTuple):
    """α and β of α h(β x), fixed or where their training begins, and what has a pair of its own."""

    alpha: float
    beta: float
    scale: str  # of SCALES


UNSCALED = Scaling(1.0, 1.0, "fixed")


class Scaled(nn.Module):
    """α h(β x) with trainable α and β, the parameters `alpha` and `beta`; those of h lie below `base`.

    Attributes:
      make: name -> h.
      alpha: what α starts from.
      beta: what β starts from.
      parameter: (module, name, initializer, x) -> the parameter, in a shape that multiplies x.
    """

    make: Make
    alpha: float
    beta: float
    parameter: Callable[[nn.Module, str, nn.initializers.Initializer, jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        alpha = self.parameter(self, "alpha", nn.initializers.constant(self.alpha), x)
        beta = self.parameter(self, "beta", nn.initializers.constant(self.beta), x)
        return alpha * self.make("base")(beta * x)


def _per_layer(module: nn.Module, name: str, init: nn.initializers.Initializer, x: jax.Array) -> jax.Array:
    return module.param(name, init, ()).astype(x.dtype)


def _fixed(make: Make, name: str, alpha: float, beta: float) -> Activation:
    """h itself where nothing scales it."""
    h = make(name)
    return h if alpha == beta == 1 else lambda x: alpha * h(beta * x)


# what has an α and a β of its own -> (module, name, initializer, x) -> the parameter, in a shape that multiplies x
PARAMETERS: dict[str, Callable[[nn.Module, str, nn.initializers.Initializer, jax.Array], jax.Array]] = {
    "layer": _per_layer,
    "neuron": per_neuron,
}


def _trained(scale: str) -> Callable[[Make, str, float, float], Activation]:
    return lambda make, name, alpha, beta: Scaled(make, alpha, beta, PARAMETERS[scale], name=name)


# name -> (maker of h, name of the layer's module, α, β) -> α h(β x)
SCALES: dict[str, Callable[[Make, str, float, float], Activation]] = {
    "fixed": _fixed,
    **{scale: _trained(scale) for scale in PARAMETERS},
}
