"""What of a trained network is exported: the parameters, the matrices of its sparse layers, and no dead neurons."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array

from sparse_jax.data.normalization import Normalization
from sparse_jax.models.forms import LENETS
from sparse_jax.sparse.layer import KERNEL
from sparse_jax.sparse.links import Links, make_links
from sparse_jax.study.shrink import Layer, shrink
from sparse_jax.study.trained import Trained, matrix
from sparse_jax.training.inference import activate, make_inference
from sparse_jax.training.parts import links_of, with_links
from sparse_jax.training.problem import Problem

CHAINS = ("mlp", "lenet_300_100", *LENETS)  # models whose dense layers are one after the other
# of the outputs with and without dead neurons, as a share of the largest, by the type of the arithmetic
AGREEMENT = {"float32": 1e-5, "bfloat16": 2**-6}


class Network(NamedTuple):
    """A network, and which outputs of its layers are left."""

    params: Any
    model_state: Any
    matrices: dict[str, csr_array]  # W[outputs, inputs] by kernel, of dense layers with a mask or links
    widths: dict[str, int]  # outputs of the dense layers that lost neurons

    def function(self, trained: Trained, problem: Problem, normalization: Normalization) -> Callable:
        """Raw inputs -> logits."""
        args = self.widths, normalization, self.params, self.model_state
        return make_inference(trained.config, problem, *args)


class Compaction(NamedTuple):
    """What came of the removal of dead neurons."""

    network: Network
    kept: dict[str, list[int]]  # hidden neurons by layer, where some were removed
    difference: float | None  # of the outputs, as a share of the largest; None where nothing was removed
    note: str  # one line


def network_of(trained: Trained) -> Network:
    """The network as it was trained."""
    names = [name for name in trained.connections if len(trained.kernels[name]) == 2]
    return Network(trained.params, trained.model_state, {name: matrix(trained, name) for name in names}, {})


def compact(trained: Trained, problem: Problem, normalization: Normalization, examples: np.ndarray) -> Compaction:
    """The network without dead neurons, if its dense layers are in series and its outputs stay what they are.

    Args:
      trained: the network.
      problem: of its run.
      normalization: of its inputs.
      examples: raw inputs, at which the outputs are compared.
    """
    network, model = network_of(trained), trained.config.model
    if model not in CHAINS:
        return Compaction(network, {}, None, f"the layers of {model} are no chain of dense ones: exported as it is")
    names = [name for name, shape in trained.kernels.items() if len(shape) == 2]
    smaller, kept = _without_dead(trained, network, names)
    removed = {name: trained.kernels[name][1] - left.size for name, left in zip(names[:-1], kept, strict=True)}
    if not any(removed.values()):
        return Compaction(network, {}, None, "no dead neurons: exported as it is")
    outputs = [
        np.asarray(jax.jit(each.function(trained, problem, normalization))(examples)) for each in (network, smaller)
    ]
    difference = float(np.abs(outputs[0] - outputs[1]).max() / max(np.abs(outputs[0]).max(), np.finfo(np.float32).tiny))
    same = np.array_equal(*(values.argmax(-1) for values in outputs))
    if not same or difference > AGREEMENT[trained.config.dtype]:  # a step function makes much of a sum's last bit
        note = f"without dead neurons the outputs would differ by {difference:.1g} of the largest: exported as it is"
        return Compaction(network, {}, None, note)
    hidden = sum(trained.kernels[name][1] for name in names[:-1])
    note = f"{sum(removed.values()):,} of {hidden:,} hidden neurons of dense layers were dead, and are left out"
    lists = {name: left.tolist() for name, left in zip(names[:-1], kept, strict=True) if removed[name]}
    return Compaction(smaller, lists, difference, note)


def _without_dead(trained: Trained, network: Network, names: list[str]) -> tuple[Network, list[np.ndarray]]:
    """The network whose chain of dense layers is shrunk, and the neurons kept of each but the last."""
    params, first = trained.params, len(trained.kernels) - len(names)  # convolutions have activation functions, too
    matrices = network.matrices | {name: matrix(trained, name) for name in names if name not in network.matrices}
    layers = [Layer(matrices[name], params[_layer(name)]["bias"]) for name in names]
    left, kept = shrink(layers, lambda i, x: np.asarray(activate(trained.config, params, first + i, x)))
    links, new_links, new = links_of(trained.model_state), {}, dict(params)
    for name, layer in zip(names, left, strict=True):
        kernel = layer.kernel.toarray().T if name not in links else None
        if kernel is None:
            kernel, new_links[name] = _as_links(layer.kernel)
        new[_layer(name)] = {KERNEL: jnp.asarray(kernel), "bias": layer.bias}
    for i, neurons in enumerate(kept):
        if (function := f"activation_{first + i}") in params:  # those of a whole layer have no axis
            new[function] = jax.tree.map(lambda leaf, at=neurons: leaf[at] if leaf.ndim else leaf, params[function])
    matrices = {name: layer.kernel for name, layer in zip(names, left, strict=True) if name in network.matrices}
    widths = {name: neurons.size for name, neurons in zip(names, kept, strict=False)}
    return Network(new, with_links(trained.model_state, new_links), matrices, widths), kept


def _as_links(kernel: csr_array) -> tuple[np.ndarray, Links]:
    """The values and the connections of W[outputs, inputs] as a layer that is executed sparsely has them."""
    by_input = kernel.tocsc()
    by_input.sort_indices()
    inputs = np.repeat(np.arange(kernel.shape[1], dtype=np.int32), np.diff(by_input.indptr))
    outputs, count = by_input.indices.astype(np.int32), np.int32(by_input.nnz)
    return by_input.data, make_links(inputs, outputs, count, kernel.shape[::-1])


def _layer(name: str) -> str:
    return name.removesuffix(f"/{KERNEL}")
