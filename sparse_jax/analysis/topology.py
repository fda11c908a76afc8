"""Everything that is measured of a topology, and of two, in plain Python values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparse_jax.topology import graph, paths
from sparse_jax.topology.graph import Agreement, Masks
from sparse_jax.topology.paths import Paths
from sparse_jax.topology.power_law import PowerLaw, fit_power_law


@dataclass(frozen=True)
class Degrees:
    """The degrees of one side of a layer; distribution[k] neurons have degree k."""

    least: int
    mean: float
    most: int
    power_law: PowerLaw | None
    distribution: list[int]


@dataclass(frozen=True)
class Layer:
    """One layer, and the neurons that it leads to; None where that depends on a chain that the layers do not form.

    Attributes:
      no_input: its neurons without an incoming connection.
      no_output: its neurons without an outgoing connection; None for the last layer, too.
    """

    shape: list[int]
    connections: int
    sparsity: float
    effective_sparsity: float | None
    in_degree: Degrees
    out_degree: Degrees
    no_input: int
    no_output: int | None
    modularity: float | None


@dataclass(frozen=True)
class Chain:
    """What the layers are together, from the inputs to the outputs.

    Attributes:
      unused_inputs: inputs without a connection.
      dead: hidden neurons without an incoming or without an outgoing connection.
      disconnected: hidden neurons on no path from an input to an output.
    """

    effective_connections: int
    effective_sparsity: float
    inputs: int
    unused_inputs: int
    hidden: int
    dead: int
    disconnected: int
    paths: Paths


@dataclass(frozen=True)
class Network:
    """All layers together.

    Attributes:
      empty_layers: those without a connection: layer collapse.
      chain: None if the layers form no chain; then `no_chain` says why.
    """

    connections: int
    entries: int
    sparsity: float
    empty_layers: list[str]
    chain: Chain | None
    no_chain: str | None


@dataclass(frozen=True)
class Topology:
    """The measures of a topology: layers in order, and the whole."""

    layers: dict[str, Layer]
    network: Network


@dataclass(frozen=True)
class Comparison:
    """What two topologies have in common, layer by layer and as a whole."""

    layers: dict[str, Agreement]
    network: Agreement


def describe_network(masks: Masks, no_chain: str | None) -> Network:
    """The measures of all layers together: the cheap part of `describe`, with its arguments."""
    entries = sum(mask.size for mask in masks.values())
    connections = sum(int(mask.sum()) for mask in masks.values())
    names, in_order, chain = list(masks), list(masks.values()), None
    empty = [names[number] for number in paths.empty_layers(in_order)]
    if no_chain is None:
        try:
            chain = _describe_chain(in_order)
        except ValueError as error:
            no_chain = str(error)
    return Network(connections, entries, 1 - connections / entries, empty, chain, no_chain)


def describe(masks: Masks, no_chain: str | None) -> Topology:
    """Every measure of a topology.

    Args:
      masks: of all layers, from the input to the output.
      no_chain: why they are not one after the other; None if they may be, which their shapes then decide.
    """
    network = describe_network(masks, no_chain)
    effective: Sequence[float | None] = [None] * len(masks)
    no_output: Sequence[int | None] = [None] * len(masks)
    if network.chain is not None:
        in_chain = list(masks.values())
        effective = [1 - mask.sum().item() / mask.size for mask in paths.effective_masks(in_chain)]
        no_output = [*((~heard).sum().item() for _, heard in paths.hidden_links(in_chain)), None]
    layers = {
        name: _describe_layer(mask, *of_chain)
        for (name, mask), *of_chain in zip(masks.items(), effective, no_output, strict=True)
    }
    return Topology(layers, network)


def compare(first: Masks, second: Masks) -> Comparison:
    """What two topologies have in common. Raises ValueError if their layers differ in name or shape."""
    whole = graph.agreement(first, second)
    layers = {name: graph.agreement({name: mask}, {name: second[name]}) for name, mask in first.items()}
    return Comparison(layers, whole)


def _describe_layer(mask: np.ndarray, effective: float | None, no_output: int | None) -> Layer:
    incoming, outgoing = graph.in_degrees(mask), graph.out_degrees(mask)
    return Layer(
        list(mask.shape),
        int(mask.sum()),
        1 - int(mask.sum()) / mask.size,
        effective,
        _describe_degrees(incoming),
        _describe_degrees(outgoing),
        int((incoming == 0).sum()),
        no_output,
        graph.modularity(mask),
    )


def _describe_degrees(degrees: np.ndarray) -> Degrees:
    distribution = graph.degree_distribution(degrees).tolist()
    return Degrees(
        int(degrees.min()), float(degrees.mean()), int(degrees.max()), fit_power_law(degrees), distribution
    )


def _describe_chain(masks: Sequence[np.ndarray]) -> Chain:
    """Raises ValueError if the layers form no chain."""
    hidden = paths.hidden_links(masks)
    first = graph.out_degrees(masks[0])
    return Chain(
        int(paths.effective_connections(masks)),
        paths.effective_sparsity(masks),
        len(first),
        int((first == 0).sum()),
        sum(len(fed) for fed, _ in hidden),
        int(paths.dead_neurons(masks)),
        int(paths.disconnected_neurons(masks)),
        paths.count_paths(masks),
    )
