"""Networks without their dead neurons, and with the outputs that they had."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array


class Layer(NamedTuple):
    """A dense layer of a chain."""

    kernel: csr_array  # W[outputs, inputs], with an entry for each connection
    bias: np.ndarray  # float32[outputs]


def shrink(
    layers: Sequence[Layer], activate: Callable[[int, np.ndarray], np.ndarray]
) -> tuple[list[Layer], list[np.ndarray]]:
    """Remove every hidden neuron without an incoming connection or without a path to an output.

    The first kind is constant, h(b), and goes into the biases of the next layer: b' = b' + W' h(b). Forward, then
    backward, once each: what loses its outputs takes no input from what is kept. Inputs and outputs stay.

    Args:
      layers: from the input to the output.
      activate: (number of the hidden layer, float32[n] of all its neurons) -> float32[n], its function.

    Returns:
      The layers that are left, and of each hidden layer the neurons kept, ascending.
    """
    kernels, biases = [layer.kernel for layer in layers], [layer.bias for layer in layers]
    kept = []
    for i in range(len(layers) - 1):
        fed, after = np.diff(kernels[i].indptr) > 0, kernels[i + 1]
        constant = activate(i, biases[i])[~fed].astype(float)
        biases[i + 1] = (biases[i + 1] + after[:, ~fed] @ constant).astype(np.float32)
        kernels[i + 1] = after[:, fed]
        kept.append(np.flatnonzero(fed))
    for i in reversed(range(len(kept))):
        heard = np.diff(kernels[i + 1].tocsc().indptr) > 0
        kernels[i + 1], kept[i] = kernels[i + 1][:, heard], kept[i][heard]
        kernels[i], biases[i] = kernels[i][kept[i]], biases[i][kept[i]]
    return [Layer(*layer) for layer in zip(kernels, biases, strict=True)], kept
