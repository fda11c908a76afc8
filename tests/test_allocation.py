"""Laws of the allocations, against an oracle in exact fractions that follows the papers."""

import math
import re
from fractions import Fraction
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given, settings

from sparse_jax.errors import UserError
from sparse_jax.topology.allocation import ALLOCATIONS, allocate

few = settings(max_examples=200, deadline=None)
dense = st.tuples(*2 * [st.integers(1, 60)])
conv = st.tuples(*2 * [st.integers(1, 5)], *2 * [st.integers(1, 12)])
names = st.sampled_from(sorted(ALLOCATIONS))
networks = st.lists(dense | conv, min_size=1, max_size=6).map(lambda shapes: {f"l{i}": s for i, s in enumerate(shapes)})
sparsities = st.floats(0, 1, exclude_max=True)
LENET = {"dense_0": (784, 300), "dense_1": (300, 100), "output": (100, 10)}
DUBOWSKI = {"dense_0": (3072, 4000), "dense_1": (4000, 1000), "dense_2": (1000, 4000)}  # its output is dense
TABLE = {  # epsilon -> links of the hidden layers; sparsity of 1, of 2 and 3, of all (SYSTEMS.md, section 1)
    10: ([70_720, 50_000, 50_000], 99.4245, 98.75, 99.159),
    20: ([141_440, 100_000, 100_000], 98.849, 97.50, 98.317),
    50: ([353_600, 250_000, 250_000], 97.122, 93.75, 95.793),
    100: ([707_200, 500_000, 500_000], 94.245, 87.50, 91.585),
    500: ([3_536_000, 2_500_000, 2_500_000], 71.224, 37.50, 57.926),
}


def size(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


def target(sparsity, shapes):
    return round((1 - sparsity) * size(shapes))


def sparsity_of(total, shapes):
    return 1 - total / size(shapes)


def counts_at(name, shapes, sparsity):
    """The counts, or None where the level is refused."""
    try:
        return allocate(name, shapes, sparsity=sparsity, epsilon=None).counts
    except UserError:
        return None


# --- the oracle ------------------------------------------------------------------------------------


def weight(name, shape):
    """p_l size_l up to a factor: what a layer asks for."""
    kernel, channels = math.prod(shape[:-2]), shape[-2:]
    return {
        "uniform": math.prod(shape),
        "erdos_renyi": kernel * sum(channels),  # Mocanu et al. 2018: ε (n_in + n_out) links, for each tap
        "erk": sum(shape),  # Evci et al. 2020: p = Σ shape / Π shape
    }[name]


class Ideal(NamedTuple):
    counts: dict[str, Fraction]
    epsilon: Fraction | None


def ideal(name, shapes, total):
    """ε weight_l for every layer; while one passes its size, the one that passes it most is made dense."""
    sizes = {layer: math.prod(shape) for layer, shape in shapes.items()}
    open_layers = {layer: Fraction(weight(name, shape)) for layer, shape in shapes.items()}
    full = {}
    while open_layers:
        epsilon = (total - sum(full.values())) / sum(open_layers.values())
        density = {layer: epsilon * asked / sizes[layer] for layer, asked in open_layers.items()}
        fullest = max(density, key=density.get)
        if density[fullest] <= 1:
            return Ideal(full | {layer: epsilon * asked for layer, asked in open_layers.items()}, epsilon)
        full[fullest] = Fraction(sizes[fullest])
        del open_layers[fullest]
    return Ideal(full, None)


# --- from a sparsity -------------------------------------------------------------------------------


@few
@given(names, networks, sparsities)
@example("erk", LENET, 0.0)
@example("erk", LENET, 0.5)
@example("erdos_renyi", DUBOWSKI, 0.2)
def test_counts_are_the_largest_remainders_of_the_ideal_ones(name, shapes, sparsity):
    counts = counts_at(name, shapes, sparsity)
    assume(counts is not None)
    exact = ideal(name, shapes, target(sparsity, shapes)).counts
    assert sum(counts.values()) == target(sparsity, shapes)
    assert all(isinstance(count, int) and 1 <= count <= math.prod(shapes[layer]) for layer, count in counts.items())
    assert all(abs(counts[layer] - exact[layer]) < 1 for layer in shapes)
    up = [exact[layer] % 1 for layer in shapes if counts[layer] > exact[layer]]
    down = [exact[layer] % 1 for layer in shapes if counts[layer] <= exact[layer]]
    assert min(up, default=1) >= max(down, default=0) - Fraction(1, 10**6)  # equal remainders may go either way


@few
@given(names, networks, sparsities)
def test_epsilon_is_the_solved_one_where_it_is_defined(name, shapes, sparsity):
    total = target(sparsity, shapes)
    assume(total < size(shapes) and counts_at(name, shapes, sparsity))
    epsilon = allocate(name, shapes, sparsity=sparsity, epsilon=None).epsilon
    assert (epsilon is None) == (name == "uniform")
    assert epsilon is None or epsilon == pytest.approx(float(ideal(name, shapes, total).epsilon), rel=1e-9)


@few
@given(names, networks, sparsities, sparsities)
def test_more_sparsity_never_means_more_connections_beyond_rounding(name, shapes, one, other):
    few_links, many = (counts_at(name, shapes, level) for level in sorted((one, other), reverse=True))
    assume(few_links and many)
    assert sum(few_links.values()) <= sum(many.values())
    assert all(few_links[layer] <= many[layer] + 1 for layer in shapes)


@given(names, networks)
def test_no_sparsity_is_dense(name, shapes):
    assert counts_at(name, shapes, 0.0) == {layer: math.prod(shape) for layer, shape in shapes.items()}


@few
@given(networks, sparsities)
def test_erdos_renyi_and_erk_differ_in_kernels_only(shapes, sparsity):
    flat = {layer: shape[-2:] for layer, shape in shapes.items()}
    assert counts_at("erk", flat, sparsity) == counts_at("erdos_renyi", flat, sparsity)


# --- the largest sparsity --------------------------------------------------------------------------


def refused_maximum(name, shapes, sparsity):
    """What the error names, as its reader would type it; None where the level is accepted."""
    try:
        allocate(name, shapes, sparsity=sparsity, epsilon=None)
    except UserError as error:
        return float(re.search(r"maximum is (\S+)$", str(error))[1])


@few
@given(names, networks, st.integers(0, 100))
@example("erk", DUBOWSKI, 1)
@example("uniform", DUBOWSKI, 1)
@example("uniform", {"a": (20, 25), "b": (25, 1), "c": (23, 15), "d": (9, 24)}, 17)  # 16 would be accepted
def test_the_largest_sparsity_named_is_below_what_was_refused_and_is_accepted(name, shapes, connections):
    sparsity = sparsity_of(connections, shapes) if 0 < connections < size(shapes) else 1 - 1e-12
    maximum = refused_maximum(name, shapes, sparsity)
    assume(maximum is not None)
    assert counts_at(name, shapes, maximum) is not None
    assert maximum < sparsity


@few
@given(names, networks)
@example("erk", LENET)
@example("uniform", LENET)
@example("erk", DUBOWSKI)
def test_nothing_beyond_the_largest_sparsity_named_is_accepted(name, shapes):
    """One connection fewer is refused, or 10⁻⁶ more sparsity where that is coarser."""
    maximum = refused_maximum(name, shapes, 1 - 0.4 / size(shapes))
    beyond = max(sparsity_of(target(maximum, shapes) - 1, shapes), maximum + 1.01e-6)
    assert counts_at(name, shapes, min(beyond, 1 - 1e-12)) is None


# --- from epsilon ----------------------------------------------------------------------------------


@few
@given(st.sampled_from(["erdos_renyi", "erk"]), networks, st.floats(1e-3, 1e3))
def test_epsilon_gives_every_layer_its_links(name, shapes, epsilon):
    try:
        allocation = allocate(name, shapes, sparsity=None, epsilon=epsilon)
    except UserError as error:
        least = float(re.search(r"least is (\S+)$", str(error))[1])
        assert epsilon < least
        assert min(allocate(name, shapes, sparsity=None, epsilon=least).counts.values()) == 1
        return
    assert allocation.epsilon == epsilon
    for layer, shape in shapes.items():
        links = min(math.prod(shape), Fraction(epsilon) * weight(name, shape))
        assert abs(allocation.counts[layer] - links) <= 0.5 + 1e-6


@pytest.mark.parametrize("epsilon", TABLE)
def test_the_published_table_of_dubowski(epsilon):
    links, first, others, together = TABLE[epsilon]
    counts = allocate("erdos_renyi", DUBOWSKI, sparsity=None, epsilon=epsilon).counts
    assert list(counts.values()) == links
    percent = [100 * sparsity_of(counts[layer], {layer: DUBOWSKI[layer]}) for layer in DUBOWSKI]
    assert percent == pytest.approx([first, others, others], abs=6e-4)
    level = sparsity_of(sum(links), DUBOWSKI)
    assert 100 * level == pytest.approx(together, abs=6e-4)
    back = allocate("erdos_renyi", DUBOWSKI, sparsity=level, epsilon=None)
    assert (back.counts, back.epsilon) == (counts, pytest.approx(epsilon))


@pytest.mark.parametrize("epsilon", [1e300, 1e308])
def test_a_huge_epsilon_is_dense(epsilon):
    counts = allocate("erdos_renyi", LENET, sparsity=None, epsilon=epsilon).counts
    assert sum(counts.values()) == size(LENET)


# --- golden ----------------------------------------------------------------------------------------


def test_erk_with_an_overflow_by_hand():
    """Weights 5 of 6, 30 of 200, 16 of 60; 133 of 266 links.

    ε = 133/51 gives the first 13.0 of 6: dense. ε = 127/46 gives the third 44.2 of 60, the second 82.8 of 200.
    """
    shapes = {"a": (2, 3), "b": (10, 20), "c": (6, 10)}
    assert counts_at("erk", shapes, 0.5) == {"a": 6, "b": 83, "c": 44}


def test_errors_say_which_allocation_and_what_to_do():
    with pytest.raises(UserError, match=r"unknown allocation 'ekr'.*'erk'"):
        allocate("ekr", LENET, sparsity=0.5, epsilon=None)
    with pytest.raises(UserError, match="--sparsity, or erdos_renyi"):
        allocate("uniform", LENET, sparsity=None, epsilon=5)
