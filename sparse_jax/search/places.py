"""Where the nodes and connections of a weight agnostic network may lie. Imports no jax."""

from typing import NamedTuple

import numpy as np

from sparse_jax.config import WANN_FUNCTIONS


class Places(NamedTuple):
    """Where what a genome may have lies. Static.

    Sources are the inputs, then the hidden slots; targets are the hidden slots, then the outputs. Slots are sorted by
    layer, within a layer by function.
    """

    inputs: int
    outputs: int
    layers: int
    nodes: int  # slots of each function in each layer

    @property
    def width(self) -> int:
        """Slots of a layer."""
        return self.nodes * len(WANN_FUNCTIONS)

    @property
    def hidden(self) -> int:
        """All hidden slots."""
        return self.layers * self.width

    @property
    def entries(self) -> int:
        """Of a matrix of sources and targets."""
        return (self.inputs + self.hidden) * (self.hidden + self.outputs)

    @property
    def possible(self) -> int:
        """How many connections lead to a later layer."""
        before = [self.inputs + layer * self.width for layer in range(self.layers + 1)]
        return sum(before[:-1]) * self.width + before[-1] * self.outputs

    @property
    def slot_layers(self) -> np.ndarray:
        """int[hidden], the layer of every slot, from 1 on: the inputs are layer 0, the outputs are after the last."""
        return 1 + np.arange(self.hidden) // self.width

    @property
    def slot_functions(self) -> np.ndarray:
        """int[hidden], the index in WANN_FUNCTIONS of every slot."""
        return np.arange(self.hidden) // self.nodes % len(WANN_FUNCTIONS)

    @property
    def source_layers(self) -> np.ndarray:
        """int[inputs + hidden]."""
        return np.concatenate([np.zeros(self.inputs, int), self.slot_layers])

    @property
    def target_layers(self) -> np.ndarray:
        """int[hidden + outputs]."""
        return np.concatenate([self.slot_layers, np.full(self.outputs, self.layers + 1)])

    @property
    def forward(self) -> np.ndarray:
        """bool[sources, targets], the connections that lead to a later layer."""
        return self.source_layers[:, None] < self.target_layers
