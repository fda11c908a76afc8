"""The activation function of every hidden layer of a network, by its index."""

from collections.abc import Callable

from sparse_jax.activations.fixed import FIXED, Activation, all_relu
from sparse_jax.activations.learnable import LEARNABLE
from sparse_jax.errors import unknown

# name -> (index of the layer, slope of all_relu) -> the function or module of that layer
ACTIVATIONS: dict[str, Callable[[int, float | None], Activation]] = {
    **{name: lambda i, alpha, f=function: f for name, function in FIXED.items()},
    **{name: lambda i, alpha, m=module: m(name=f"activation_{i}") for name, module in LEARNABLE.items()},
    "all_relu": lambda i, alpha: all_relu(alpha, i),
}


def by_layer(names: tuple[str, ...], all_relu_alpha: float | None) -> Callable[[int], Activation]:
    """What a model takes as its `activation`: layer index -> callable.

    Args:
      names: one name for all layers, or one name a layer.
      all_relu_alpha: the slope of all_relu, positive; None where no layer uses it.

    Raises:
      UserError: for an unknown name.
    """
    for name in names:
        if name not in ACTIVATIONS:
            raise unknown("activation", name, ACTIVATIONS)

    def activation(i: int) -> Activation:
        return ACTIVATIONS[names[i] if len(names) > 1 else names[0]](i, all_relu_alpha)

    return activation
