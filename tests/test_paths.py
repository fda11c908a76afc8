"""Reachability and paths, against an enumeration of all paths of small networks."""

import collections
import itertools
import math
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparse_jax.topology import paths

few = settings(max_examples=100, deadline=None)
SHAPES = {
    "one layer": [(3, 2)],
    "mlp": [(4, 3), (3, 4), (4, 2)],
    "convolutions": [(3, 2, 2, 3), (2, 2, 3, 2)],
    "flattened": [(2, 1, 2, 3), (6, 3), (3, 2)],
    "signal": [(3, 1, 2), (2, 2, 2), (8, 3)],
}
RARE = st.sampled_from([False, False, True])
networks = st.sampled_from(list(SHAPES.values())).flatmap(
    lambda shapes: st.tuples(*(hnp.arrays(bool, shape, elements=RARE) for shape in shapes))
)


class Oracle:
    """A network as links from neuron to neuron, and every path through it."""

    def __init__(self, masks):
        self.widths = [masks[0].shape[-2], *(mask.shape[-1] for mask in masks)]
        self.entries = [  # (index in the mask, input neuron, output neuron)
            [(tuple(index), index[-2] % width, index[-1]) for index in np.argwhere(mask).tolist()]
            for mask, width in zip(masks, self.widths, strict=False)
        ]
        self.links = [{(i, j) for _, i, j in entries} for entries in self.entries]
        self.paths = [
            path for path in itertools.product(*map(range, self.widths))
            if all(step in links for step, links in zip(itertools.pairwise(path), self.links, strict=True))
        ]  # fmt: skip

    def hidden(self):
        return [(layer, neuron) for layer in range(1, len(self.widths) - 1) for neuron in range(self.widths[layer])]

    def dead(self):
        fed = {(layer + 1, j) for layer, links in enumerate(self.links) for _, j in links}
        heard = {(layer, i) for layer, links in enumerate(self.links) for i, _ in links}
        return [neuron for neuron in self.hidden() if neuron not in fed or neuron not in heard]

    def disconnected(self):
        return [(layer, neuron) for layer, neuron in self.hidden() if all(path[layer] != neuron for path in self.paths)]

    def effective(self):
        """The indices of the entries on a path, by layer."""
        used = [{path[layer : layer + 2] for path in self.paths} for layer in range(len(self.links))]
        return [
            sorted(index for index, i, j in entries if (i, j) in steps)
            for entries, steps in zip(self.entries, used, strict=True)
        ]


@few
@given(networks)
def test_equals_the_enumeration_of_all_paths(masks):
    oracle = Oracle(masks)
    effective = oracle.effective()
    found = paths.effective_masks(masks)
    assert [mask.shape for mask in found] == [mask.shape for mask in masks]
    assert [sorted(map(tuple, np.argwhere(mask).tolist())) for mask in found] == effective
    count, size = sum(map(len, effective)), sum(mask.size for mask in masks)
    assert paths.effective_connections(masks) == count
    assert paths.effective_sparsity(masks) == 1 - count / size
    assert paths.dead_neurons(masks) == len(oracle.dead())
    assert paths.disconnected_neurons(masks) == len(oracle.disconnected())
    pairs = [
        sum((path[0], path[-1]) == pair for path in oracle.paths)
        for pair in itertools.product(range(oracle.widths[0]), range(oracle.widths[-1]))
    ]
    assert paths.count_paths(masks) == paths.Paths(len(oracle.paths), min(pairs), max(pairs))


def reached(links, start):
    """The neurons (layer, index) that a breadth-first search finds from those of `start`."""
    seen, queue = set(start), collections.deque(start)
    while queue:
        for neuron in links.get(queue.popleft(), ()):
            if neuron not in seen:
                seen.add(neuron)
                queue.append(neuron)
    return seen


@pytest.mark.parametrize("density", [0.0, 0.02, 0.04, 0.08, 0.2])
def test_connectivity_equals_breadth_first_search(density):
    """Of networks with too many paths to list; links from a neuron that inputs reach to one that reaches outputs."""
    rng, widths = np.random.default_rng(int(1000 * density)), (40, 30, 25, 20, 10)
    masks = [rng.random(shape) < density for shape in itertools.pairwise(widths)]
    forward, backward = collections.defaultdict(list), collections.defaultdict(list)
    links = [((layer, i), (layer + 1, j)) for layer, mask in enumerate(masks) for i, j in np.argwhere(mask).tolist()]
    for one, other in links:
        forward[one].append(other)
        backward[other].append(one)
    from_inputs = reached(forward, [(0, i) for i in range(40)])
    to_outputs = reached(backward, [(4, i) for i in range(10)])
    hidden = [(layer, i) for layer in (1, 2, 3) for i in range(widths[layer])]
    assert paths.connectivity(masks) == (
        sum(neuron not in forward or neuron not in backward for neuron in hidden),
        sum(one in from_inputs and other in to_outputs for one, other in links),
        sum(all(one[0] != layer for one, _ in links) for layer in range(4)),
    )
    assert paths.disconnected_neurons(masks) == len(set(hidden) - (from_inputs & to_outputs))


@few
@given(networks)
def test_effective_is_what_is_left_when_dead_neurons_go_again_and_again(masks):
    effective, left = paths.effective_masks(masks), [mask.copy() for mask in masks]
    active = sum(mask.sum() for mask in masks)
    assert paths.dead_neurons(masks) <= paths.disconnected_neurons(masks)
    assert paths.effective_connections(masks) <= active
    if not paths.dead_neurons(masks):
        assert paths.effective_connections(masks) == active
    for _ in range(sum(mask.shape[-1] for mask in masks)):
        for number, (fed, heard) in enumerate(paths.hidden_links(left)):
            gone = ~(fed & heard)
            left[number][..., gone] = False
            taken = np.tile(gone, left[number + 1].shape[-2] // len(gone))
            left[number + 1][..., taken, :] = False
    for mask, expected in zip(left, effective, strict=True):
        np.testing.assert_array_equal(mask, expected)
    again = paths.effective_masks(effective)
    for mask, expected in zip(again, effective, strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_a_layer_without_a_mask_has_every_connection():
    shapes = {"dense_0": (2, 3), "output": (3, 2), "after": (2, 2)}  # not in the order of their names
    output = np.array([[True, False], [False, False], [False, False]])
    found = paths.with_dense_layers(shapes, {"output": output}, np.ones)
    assert list(found) == list(shapes)
    assert found["output"] is output
    for name in ("dense_0", "after"):
        assert (found[name].dtype, found[name].shape) == (bool, shapes[name])
        assert found[name].all()
    # neurons 1 and 2 of the first hidden layer and 1 of the second are dead; 2 links, 1 link and 2 links are left
    assert paths.connectivity(list(found.values())) == (3, 5, 0)


def test_hidden_links():
    masks = [np.array([[1, 0], [1, 0]], bool), np.array([[0], [1]], bool)]
    ((fed, heard),) = paths.hidden_links(masks)
    assert fed.tolist() == [True, False]
    assert heard.tolist() == [False, True]
    assert paths.dead_neurons(masks) == 2


def test_empty_layers():
    masks = [np.eye(2, dtype=bool), np.zeros((2, 2), bool), np.ones((2, 1), bool)]
    assert paths.empty_layers(masks) == [1]
    assert paths.collapsed_layers(masks) == 1
    assert paths.effective_connections(masks) == 0
    crossed = [np.array([[True, False]]), np.array([[False], [True]])]
    assert paths.empty_layers(crossed) == []
    assert paths.collapsed_layers(crossed) == 0
    assert paths.effective_connections(crossed) == 0


# --- traced ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_traced_measures_equal_those_on_the_host(shapes):
    rng = np.random.default_rng(0)
    runs = [[rng.random(shape) < 0.4 for shape in shapes] for _ in range(7)]
    runs += [[mask & (layer != 0) for layer, mask in enumerate(runs[0])]]
    stacked = [jnp.stack(masks) for masks in zip(*runs, strict=True)]
    measures = (
        paths.dead_neurons, paths.disconnected_neurons, paths.effective_connections, paths.collapsed_layers
    )  # fmt: skip
    together = jax.jit(jax.vmap(lambda masks: [measure(masks) for measure in measures]))(stacked)
    for measure, values in zip(measures, together, strict=True):
        assert values.dtype == jnp.int32
        assert values.tolist() == [measure(masks) for masks in runs]
    effective = jax.jit(paths.effective_masks)([mask[0] for mask in stacked])
    for mask, expected in zip(effective, paths.effective_masks(runs[0]), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_needs_no_jax():
    code = (
        "import sys, sparse_jax.topology.paths, sparse_jax.topology.graph, sparse_jax.topology.power_law;"
        "print('jax' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


# --- how many --------------------------------------------------------------------------------------


def test_numbers_of_any_size_are_exact():
    """One input, layers of n neurons fully connected, one output: n^layers paths; a removed link takes its share."""
    width, depth = 97, 30
    masks = [np.ones((1, width), bool), *[np.ones((width, width), bool)] * (depth - 1), np.ones((width, 1), bool)]
    assert paths.count_paths(masks) == paths.Paths(*3 * [width**depth])
    masks[0] = masks[0].copy()
    masks[0][0, 5] = False
    assert paths.count_paths(masks).total == (width - 1) * width ** (depth - 1)


def test_digits_carry_at_the_base():
    """Products around powers of 2^26, where a digit becomes full, or exactly zero."""
    for exponent in range(20, 60):
        masks = [np.ones((1, 2), bool), *[np.ones((2, 2), bool)] * (exponent - 1), np.ones((2, 1), bool)]
        assert paths.count_paths(masks).total == 2**exponent
        widened = [np.ones((3, 1), bool), *masks]
        assert paths.count_paths(widened) == paths.Paths(3 * 2**exponent, 2**exponent, 2**exponent)


def test_is_quick():
    rng = np.random.default_rng(0)
    widths = (784, 300, 100, 10)
    masks = [rng.random(shape) < 0.5 for shape in itertools.pairwise(widths)]
    begin = time.perf_counter()
    total = paths.count_paths(masks).total
    assert time.perf_counter() - begin < 0.5
    assert math.isclose(total, math.prod(widths) / 8, rel_tol=0.05)


# --- the chain -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(3, 2), (3, 2)], "layer 1 has 3 inputs, the layer before it has 2 outputs"),
        ([(3, 2), (4, 2)], "layer 1 has 4 inputs"),  # twice the outputs, but nothing to flatten
        ([(3, 3, 1, 2), (3, 3, 4, 2)], "layer 1 has 4 inputs"),
        ([(3, 3, 1, 2), (8, 3), (6, 3)], "layer 2 has 6 inputs"),
        ([(3, 3, 1, 4), (6, 3)], "layer 1 has 6 inputs, the layer before it has 4 outputs"),
        ([], "at least one layer"),
    ],
)  # fmt: skip
def test_layers_that_form_no_chain(shapes, message):
    masks = [np.ones(shape, bool) for shape in shapes]
    for measure in (paths.dead_neurons, paths.effective_connections, paths.count_paths, paths.disconnected_neurons):
        with pytest.raises(ValueError, match=message):
            measure(masks)


def test_layer_order():
    names = ["output/kernel", "dense_10/kernel", "dense_2/kernel", "conv_0/kernel", "output_gate", "a_1/conv_3/kernel"]
    assert paths.layer_order(names) == [names[5], names[3], names[2], names[1], names[4], names[0]]
