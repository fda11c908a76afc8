"""Laws of the allocations, against an oracle in exact fractions that follows the papers."""

import math
import re
from fractions import Fraction
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given, settings

from sparse_jax.errors import UserError
from sparse_jax.topology.allocation import ALLOCATIONS, allocate, explicit, parse_layer_sparsity

few = settings(max_examples=200, deadline=None)
dense = st.tuples(*2 * [st.integers(1, 60)])
conv = st.tuples(*2 * [st.integers(1, 5)], *2 * [st.integers(1, 12)])
names = st.sampled_from(sorted(ALLOCATIONS))
powers = st.sampled_from([0, 1, 2, 3])
networks = st.lists(dense | conv, min_size=1, max_size=6).map(lambda shapes: {f"l{i}": s for i, s in enumerate(shapes)})
sparsities = st.floats(0, 1, exclude_max=True)
OF_EPSILON = ("erdos_renyi", "erk")
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


def first_of(shapes):
    """The layer that the network reads its input with: not the first of the dict, whose order means nothing."""
    return list(shapes)[-1]


def allocated(name, shapes, *, sparsity=None, epsilon=None, power=1):
    return allocate(name, shapes, sparsity=sparsity, epsilon=epsilon, power=power, first=first_of(shapes))


def counts_at(name, shapes, sparsity, power=1):
    """The counts, or None where the level is refused."""
    try:
        return allocated(name, shapes, sparsity=sparsity, power=power).counts
    except UserError:
        return None


# --- the oracle ------------------------------------------------------------------------------------


def weight(name, shape, power=1):
    """p_l size_l up to a factor: what a layer asks for."""
    kernel, channels, links = math.prod(shape[:-2]), shape[-2:], math.prod(shape)
    return {
        "uniform": links,
        "uniform_dense_first": links,
        "erdos_renyi": kernel * sum(channels),  # Mocanu et al. 2018: ε (n_in + n_out) links, for each tap
        "erk": links * Fraction(sum(shape), links) ** power,  # Evci et al. 2020: p = Σ shape / Π shape
        "balanced": 1,
        "global": links,
    }[name]


class Ideal(NamedTuple):
    counts: dict[str, Fraction]
    epsilon: Fraction | None


def ideal(name, shapes, total, power=1):
    """ε weight_l for every layer; while one passes its size, the one that passes it most is made dense."""
    sizes = {layer: math.prod(shape) for layer, shape in shapes.items()}
    open_layers = {layer: Fraction(weight(name, shape, power)) for layer, shape in shapes.items()}
    full = {}
    if name == "uniform_dense_first":
        full[first_of(shapes)] = Fraction(sizes[first_of(shapes)])
        del open_layers[first_of(shapes)]
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
@given(names, networks, sparsities, powers)
@example("erk", LENET, 0.0, 1)
@example("erk", LENET, 0.5, 1)
@example("erk", LENET, 0.5, 3)
@example("erdos_renyi", DUBOWSKI, 0.2, 1)
@example("uniform_dense_first", LENET, 0.5, 1)
@example("balanced", LENET, 0.5, 1)
def test_counts_are_the_largest_remainders_of_the_ideal_ones(name, shapes, sparsity, power):
    power = power if name == "erk" else 1
    counts = counts_at(name, shapes, sparsity, power)
    assume(counts is not None)
    exact = ideal(name, shapes, target(sparsity, shapes), power).counts
    least = 0 if name == "global" else 1
    assert sum(counts.values()) == target(sparsity, shapes) > 0
    assert all(isinstance(count, int) and least <= count <= math.prod(shapes[layer]) for layer, count in counts.items())
    assert all(abs(counts[layer] - exact[layer]) < 1 for layer in shapes)
    up = [exact[layer] % 1 for layer in shapes if counts[layer] > exact[layer]]
    down = [exact[layer] % 1 for layer in shapes if counts[layer] <= exact[layer]]
    assert min(up, default=1) >= max(down, default=0) - Fraction(1, 10**6)  # equal remainders may go either way


@few
@given(names, networks, sparsities)
def test_epsilon_is_the_solved_one_where_it_is_defined(name, shapes, sparsity):
    total = target(sparsity, shapes)
    assume(total < size(shapes) and counts_at(name, shapes, sparsity))
    epsilon = allocated(name, shapes, sparsity=sparsity).epsilon
    assert (epsilon is None) == (name not in OF_EPSILON)
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


@few
@given(networks, sparsities)
def test_erk_of_power_zero_is_uniform(shapes, sparsity):
    assert counts_at("erk", shapes, sparsity, power=0) == counts_at("uniform", shapes, sparsity)


@few
@given(networks, sparsities)
def test_balanced_layers_have_the_same_count_or_are_dense(shapes, sparsity):
    counts = counts_at("balanced", shapes, sparsity)
    assume(counts is not None)
    sparse = [count for layer, count in counts.items() if count < math.prod(shapes[layer])]
    assert max(sparse, default=0) - min(sparse, default=0) <= 1


@few
@given(networks, sparsities)
def test_a_dense_first_layer_leaves_a_uniform_rest(shapes, sparsity):
    counts = counts_at("uniform_dense_first", shapes, sparsity)
    first = first_of(shapes)
    rest = {layer: shape for layer, shape in shapes.items() if layer != first}
    left = target(sparsity, shapes) - math.prod(shapes[first])
    if counts is None:
        assert left < len(rest) or counts_at("uniform", rest, sparsity_of(left, rest)) is None
    else:
        assert counts.pop(first) == math.prod(shapes[first])
        assert not rest or counts == counts_at("uniform", rest, sparsity_of(left, rest))


@few
@given(networks, st.integers(1, 50))
def test_a_global_ranking_refuses_an_empty_network_only(shapes, connections):
    connections = min(connections, size(shapes))
    counts = counts_at("global", shapes, sparsity_of(connections, shapes))
    assert sum(counts.values()) == connections
    assert counts_at("global", shapes, 1 - 0.4 / size(shapes)) is None


# --- the largest sparsity --------------------------------------------------------------------------


def refused_maximum(name, shapes, sparsity):
    """What the error names, as its reader would type it; None where the level is accepted."""
    try:
        allocated(name, shapes, sparsity=sparsity)
    except UserError as error:
        return float(re.search(r"maximum is (\S+)$", str(error))[1])


@few
@given(names, networks, st.integers(0, 100))
@example("erk", DUBOWSKI, 1)
@example("uniform", DUBOWSKI, 1)
@example("uniform_dense_first", LENET, 900)
@example("uniform_dense_first", {"a": (3, 4)}, 11)
@example("global", LENET, 1)
@example("uniform", {"a": (20, 25), "b": (25, 1), "c": (23, 15), "d": (9, 24)}, 17)  # 16 would be accepted
def test_the_largest_sparsity_named_is_below_what_was_refused_and_is_accepted(name, shapes, connections):
    sparsity = sparsity_of(connections, shapes) if 0 < connections < size(shapes) else 1 - 1e-12
    maximum = refused_maximum(name, shapes, sparsity)
    assume(maximum is not None)
    assert counts_at(name, shapes, maximum) is not None
    assert maximum < sparsity


@few
@given(names, networks, st.integers(1, 100))
@example("uniform", {"a": (10, 10), "b": (2, 5)}, 10)  # 9.1 and 0.9
@example("uniform", {"a": (10, 10), "b": (2, 5)}, 11)
def test_a_level_is_refused_where_a_layer_has_less_than_a_connection(name, shapes, connections):
    connections = min(connections, size(shapes))
    exact = ideal(name, shapes, connections).counts
    starved = name != "global" and min(exact.values()) < 1
    refused = counts_at(name, shapes, sparsity_of(connections, shapes)) is None
    assert refused == (starved or sum(exact.values()) != connections)


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
@given(st.sampled_from(OF_EPSILON), networks, st.floats(1e-3, 1e3), powers)
@example("erk", DUBOWSKI, 0.1, 3)
def test_epsilon_gives_every_layer_its_links(name, shapes, epsilon, power):
    power = power if name == "erk" else 1
    try:
        allocation = allocated(name, shapes, epsilon=epsilon, power=power)
    except UserError as error:
        least = float(re.search(r"least is (\S+)$", str(error))[1])
        assert epsilon < least
        assert min(allocated(name, shapes, epsilon=least, power=power).counts.values()) == 1
        return
    assert allocation.epsilon == epsilon
    for layer, shape in shapes.items():
        links = min(math.prod(shape), Fraction(epsilon) * weight(name, shape, power))
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


def test_a_power_by_hand():
    """Power 2: a (20 = 2 · 10) has (12/20)² 20 = 7.2, b (100) has (20/100)² 100 = 4; ε = 28/11.2: 18 and 10."""
    assert counts_at("erk", {"a": (2, 10), "b": (10, 10)}, 1 - 28 / 120, power=2) == {"a": 18, "b": 10}


def test_a_dense_first_layer_by_hand():
    """Of 6 + 200 + 60, 136 are left for 206 after the 60 of c, and 130 · 200/206 = 126.2, 3.8 for b and a at 190."""
    shapes = {"a": (2, 3), "b": (10, 20), "c": (6, 10)}
    assert counts_at("uniform_dense_first", shapes, 1 - 190 / 266) == {"a": 4, "b": 126, "c": 60}


def test_errors_say_which_allocation_and_what_to_do():
    with pytest.raises(UserError, match=r"unknown allocation 'ekr'.*'erk'"):
        allocate("ekr", LENET, sparsity=0.5, epsilon=None)
    for name in set(ALLOCATIONS) - set(OF_EPSILON):
        with pytest.raises(UserError, match=f"define a {name} allocation: use --sparsity, or erdos_renyi"):
            allocated(name, LENET, epsilon=5)
    with pytest.raises(UserError, match=r"leaves the network without .* maximum is 0\.999996"):
        allocated("global", {"output": (500, 500)}, sparsity=0.999999)
    with pytest.raises(UserError, match=r"leaves output sparse: .* maximum is 0\.000000"):
        allocated("uniform_dense_first", {"output": (5, 5)}, sparsity=0.1)


@pytest.mark.parametrize("first", [None, "conv_0"])
def test_a_dense_first_layer_has_to_be_named(first):
    with pytest.raises(ValueError, match=f"needs the first layer, one of dense_0, dense_1, output; got {first}"):
        allocate("uniform_dense_first", LENET, sparsity=0.5, epsilon=None, first=first)


@pytest.mark.parametrize("name", sorted(set(ALLOCATIONS) - {"erk"}))
def test_a_power_is_of_erk_only(name):
    with pytest.raises(ValueError, match=f"{name} has no power"):
        allocated(name, LENET, sparsity=0.5, power=2)


# --- a sparsity for every layer --------------------------------------------------------------------


@few
@given(networks, st.lists(sparsities, min_size=6, max_size=6), st.booleans())
def test_every_layer_has_the_sparsity_it_is_given(shapes, levels, in_full):
    shapes = {f"{layer}/kernel": shape for layer, shape in shapes.items()}
    given = {
        layer if in_full else layer.removesuffix("/kernel"): level
        for layer, level in zip(sorted(shapes, reverse=True), levels, strict=False)
    }
    exact = {layer: (1 - level) * math.prod(shapes[f"{layer.removesuffix('/kernel')}/kernel"])
             for layer, level in given.items()}  # fmt: skip
    if min(exact.values()) <= 0.5:
        with pytest.raises(UserError, match="without connections: its maximum is"):
            explicit(shapes, given)
        return
    allocation = explicit(shapes, given)
    assert allocation.epsilon is None
    assert list(allocation.counts) == list(shapes)
    for layer, links in exact.items():
        assert abs(allocation.counts[f"{layer.removesuffix('/kernel')}/kernel"] - links) <= 0.5


def test_levels_are_read_from_a_flag():
    assert parse_layer_sparsity("dense_0=0.98:dense_1 = .9:output=0") == {"dense_0": 0.98, "dense_1": 0.9, "output": 0}
    assert explicit(LENET, parse_layer_sparsity("output=0:dense_1=0.9:dense_0=0.98")).counts == {
        "dense_0": 4704, "dense_1": 3000, "output": 1000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not layer=number"),
        ("a=0.5:", "'' is not layer=number"),
        ("a", "'a' is not layer=number"),
        ("a=", "'a=' is not layer=number"),
        ("=0.5", "'=0.5' is not layer=number"),
        ("a=half", "'a=half' is not layer=number; an example"),
        ("a=0.5:a=0.6", "names a twice"),
        ("a=1", r"a=1 is not in \[0, 1\)"),
        ("a=-0.1", r"a=-0\.1 is not in \[0, 1\)"),
        ("a=nan", r"a=nan is not in \[0, 1\)"),
    ],
)
def test_a_flag_of_levels_that_is_wrong(text, message):
    with pytest.raises(UserError, match=f"--layer_sparsity.*{message}"):
        parse_layer_sparsity(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": 0, "dense_1": 0}, r"unknown layer of --layer_sparsity 'dense_1'.*Known: a, b"),
        ({"a": 0}, "does not name b"),
        ({}, "does not name a, b"),
        ({"a": 0, "a/kernel": 0, "b": 0}, "names a twice"),
        ({"a": 1.0, "b": 0}, r"a=1 is not in \[0, 1\)"),
        ({"a": 0, "b": 0.96}, r"leaves b without connections: its maximum is 0\.900000"),
    ],
)
def test_levels_that_do_not_fit_the_network(given, message):
    with pytest.raises(UserError, match=message):
        explicit({"a/kernel": (2, 3), "b/kernel": (2, 5)}, given)
