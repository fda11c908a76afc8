"""The kernels of every model by name and shape, known before jax is imported.

Flags are validated with it: a sparsity that leaves a layer without connections, a `dense_layers` that matches
nothing. A test holds it equal to the shapes of the initialised models.
"""

import math
from collections.abc import Callable

Shapes = dict[str, tuple[int, ...]]


def _mlp(input_shape: tuple[int, ...], hidden_sizes: tuple[int, ...], classes: int) -> Shapes:
    widths = (math.prod(input_shape), *hidden_sizes, classes)
    names = (*(f"dense_{i}" for i in range(len(hidden_sizes))), "output")
    return {f"{name}/kernel": widths[i : i + 2] for i, name in enumerate(names)}


# the models of which every path from an input to an output passes every kernel once, in the order of KERNELS
IN_SERIES = ("mlp",)

# model -> (input_shape, hidden_sizes, classes) -> kernel shapes, in the order of the layers
KERNELS: dict[str, Callable[[tuple[int, ...], tuple[int, ...], int], Shapes]] = {"mlp": _mlp}
