"""The activation function of every hidden layer of a network, by its index."""

from collections.abc import Callable
from functools import partial

from sparse_jax.activations.fixed import FIXED, Activation, all_relu
from sparse_jax.activations.learnable import LEARNABLE
from sparse_jax.activations.scaling import SCALES, Scaling
from sparse_jax.errors import unknown

# name -> (index of the layer, slope of all_relu, name of a module) -> the function or module of that layer
ACTIVATIONS: dict[str, Callable[[int, float | None, str], Activation]] = {
    **{name: lambda i, alpha, called, f=function: f for name, function in FIXED.items()},
    "all_relu": lambda i, alpha, called: all_relu(alpha, i),
    **{name: lambda i, alpha, called, m=module: m(name=called) for name, module in LEARNABLE.items()},
}

GATES = {name: FIXED[name] for name in ("sigmoid", "hard_sigmoid")}  # of recurrent cells and excitations


def by_layer(names: tuple[str, ...], all_relu_alpha: float | None, scaling: Scaling) -> Callable[[int], Activation]:
    """What a model takes as its `activation`: layer index -> callable.

    Parameters of layer i, of its function and of its scaling, are named `activation_<i>/...`.

    Args:
      names: one name for all layers, or one name a layer.
      all_relu_alpha: the slope of all_relu, positive; None where no layer uses it.
      scaling: what every layer's function is scaled with; UNSCALED leaves it as it is.

    Raises:
      UserError: for an unknown name.
    """
    for name in names:
        if name not in ACTIVATIONS:
            raise unknown("activation", name, ACTIVATIONS)
    if scaling.scale not in SCALES:
        raise unknown("activation_scale", scaling.scale, SCALES)

    def activation(i: int) -> Activation:
        make = partial(ACTIVATIONS[names[i] if len(names) > 1 else names[0]], i, all_relu_alpha)
        return SCALES[scaling.scale](make, f"activation_{i}", scaling.alpha, scaling.beta)

    return activation
