"""Measures of a layer as a bipartite graph, and of what two topologies have in common.

A mask has the shape of its kernel, inputs before outputs: dense [n_in, n_out], convolution [h, w, c_in, c_out].
Plain NumPy, on the host. What depends on the chain of layers is in `paths`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Masks = Mapping[str, np.ndarray]  # layer name -> bool, on the host


def in_degrees(mask: np.ndarray) -> np.ndarray:
    """int[n_out], the connections into each output; a convolution counts every tap."""
    return mask.sum(axis=tuple(range(mask.ndim - 1)))


def out_degrees(mask: np.ndarray) -> np.ndarray:
    """int[n_in], the connections out of each input; a convolution counts every tap."""
    return mask.sum(axis=(*range(mask.ndim - 2), mask.ndim - 1))


def degree_distribution(degrees: np.ndarray) -> np.ndarray:
    """int[max degree + 1], how many neurons have degree 0, 1, 2, ..."""
    return np.bincount(degrees)


@dataclass(frozen=True)
class Agreement:
    """What two topologies of the same shapes have in common; None where a ratio is 0 / 0.

    Attributes:
      common: connections that both have, |A ∩ B|.
      either: connections that one of them has, |A ∪ B|.
      overlap: |A ∩ B| / min(|A|, |B|), in [0, 1]; 1 if one contains the other.
      jaccard: |A ∩ B| / |A ∪ B|, in [0, 1]; 1 if they are equal.
      chance: the overlap to expect of two random topologies with these connections by layer.
    """

    common: int
    either: int
    overlap: float | None
    jaccard: float | None
    chance: float | None


def agreement(first: Masks, second: Masks) -> Agreement:
    """Overlap coefficient and Jaccard index over all layers together.

        chance = Σ_l |A_l| |B_l| / size_l / min(|A|, |B|)

    Raises:
      ValueError: the layers differ in name or shape.
    """
    refuse_difference(first, second)
    counts = [[int(masks[name].sum()) for name in first] for masks in (first, second)]
    common = sum(int((mask & second[name]).sum()) for name, mask in first.items())
    either = sum(map(sum, counts)) - common
    fewest = min(map(sum, counts))
    by_chance = sum(a * b / mask.size for a, b, mask in zip(*counts, first.values(), strict=True))
    return Agreement(
        common,
        either,
        common / fewest if fewest else None,
        common / either if either else None,
        by_chance / fewest if fewest else None,
    )


def refuse_difference(first: Masks, second: Masks) -> None:
    """Raise ValueError for the first layer that only one of two topologies has, or has in another shape."""
    for name in (*first, *second):
        shapes = [masks[name].shape if name in masks else None for masks in (first, second)]
        if shapes[0] != shapes[1]:
            texts = ("absent" if shape is None else "×".join(map(str, shape)) for shape in shapes)
            raise ValueError(f"{name} differs: {' and '.join(texts)}")


# --- modularity ------------------------------------------------------------------------------------


def modularity(mask: np.ndarray) -> float | None:
    """Barber's bipartite modularity of a layer, maximised over partitions by label propagation and merging.

        Q = 1/m Σ_ij (A_ij − k_i d_j / m) [input i and output j are in the same module]

    with m links and the degrees k, d of inputs and outputs (Barber 2007, Phys. Rev. E 76, 066102). A is
    over channels for a convolution: a pair is linked if any tap is.

    The partition starts from one module for each neuron of the smaller side (the outputs of equals). In turn, each
    neuron of one side joins the module of largest gain given the other side; then the two modules whose union gains
    most merge, as long as that gains; and so on until neither does (the steps of LPAb+, Liu and Murata 2010). All in
    integers, ties to the lower label: the same value everywhere. It is a local maximum, so a lower bound of the
    largest Q, which is hard to find; and a sparse random layer has a large Q, too: compare at equal degrees.

    Args:
      mask: bool[..., n_in, n_out].

    Returns:
      Q in [0, 1), or None without a connection.
    """
    graph = mask.any(axis=tuple(range(mask.ndim - 2)))
    graph = graph if graph.shape[0] >= graph.shape[1] else graph.T
    links = np.nonzero(graph)
    if not len(links[0]):
        return None
    labels = np.arange(graph.shape[1])
    while True:
        labels, gains = _propagate(links, graph.shape, labels)
        merged = _merge(gains)
        if len(np.unique(merged)) == len(gains):
            return int(np.trace(gains)) / len(links[0]) ** 2
        labels = merged[labels]


def _propagate(links: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], labels: np.ndarray) -> tuple:
    """Let rows and columns choose their modules in turn, until Q rises no more.

    Args:
      links: the row and the column of each link.
      shape: numbers of rows and columns.
      labels: int[columns], the module of each.

    Returns:
      (labels, gains) of the last rise, with the modules numbered without gaps.
    """
    rows, columns = links
    best = None
    while True:
        row_labels = _choose(rows, labels[columns], shape[0])
        chosen = _choose(columns, row_labels[rows], shape[1])
        modules, packed = np.unique(np.concatenate([row_labels, chosen]), return_inverse=True)
        row_labels, labels = np.split(packed, [shape[0]])
        gains = _gains(row_labels[rows], labels[columns], (len(modules), len(modules)))
        if best is not None and np.trace(gains) <= np.trace(best[1]):
            return best
        best = labels, gains


def _choose(nodes: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """int[count], the module of largest gain for each node, given the label at the other end of each of its links."""
    return np.argmax(_gains(nodes, labels, (count, int(labels.max()) + 1)), axis=1)


def _gains(groups: np.ndarray, others: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """int64[shape], m² times what Q gains from group i and other group j in one module: m L_ij − K_i D_j."""
    between = np.bincount(groups * shape[1] + others, minlength=shape[0] * shape[1]).reshape(shape)
    return len(groups) * between - np.outer(between.sum(1), between.sum(0))


def _merge(gains: np.ndarray) -> np.ndarray:
    """int[modules], the new label of each module after greedy merging; the gain of a union is the sum of theirs."""
    labels = np.arange(len(gains))
    gains = np.triu(gains + gains.T, 1)
    gains += gains.T
    while gains.max() > 0:
        kept, gone = divmod(int(gains.argmax()), len(gains))
        gains[kept] += gains[gone]
        gains[:, kept] = gains[kept]
        gains[gone] = gains[:, gone] = gains[kept, kept] = 0
        labels[labels == gone] = kept
    return labels
