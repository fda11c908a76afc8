"""RadiX-Nets against their definition by Kronecker products and shifts, in Python integers; cropping; the nearest."""

import itertools
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparse_jax.errors import UserError
from sparse_jax.topology.circulant import Circulant, Layers, connections_by_step, cut, kernel_masks, layers_of
from sparse_jax.topology.paths import count_paths
from sparse_jax.topology.radix import (
    graph_challenge,
    nearest,
    parse_radix,
    parse_widths,
    radix_masks,
    radix_net,
    radix_topology,
    show_lists,
)
from sparse_jax.topology.radix_search import _costs

few = settings(max_examples=60, deadline=None)
THREE = {"dense_0/kernel": (784, 300), "dense_1/kernel": (300, 100)}


def factorizations(number):
    """Every way to write a number as a product of factors from 2 on, in order."""
    if number == 1:
        return [()]
    return [
        (d, *rest) for d in range(2, number + 1) if number % d == 0 for rest in factorizations(number // d)
    ]


@st.composite
def nets(draw):
    """Lists of equal products, a last one whose product divides it, and widths."""
    order = draw(st.sampled_from([2, 3, 4, 6, 8, 9, 12]))
    lists = draw(st.lists(st.sampled_from(factorizations(order)), min_size=1, max_size=3))
    divisor = draw(st.sampled_from([d for d in range(1, order + 1) if order % d == 0]))
    lists += [draw(st.sampled_from(factorizations(divisor)))] * (divisor > 1)
    count = sum(map(len, lists))
    return lists, draw(st.lists(st.integers(1, 3), min_size=count + 1, max_size=count + 1))


def by_definition(lists, widths):
    """W_i = ones(B_{i−1}, B_i) ⊗ Σ_{j < r} P^(j v), in objects."""
    order, layers = math.prod(lists[0]), []
    shift = np.roll(np.eye(order, dtype=object), 1, axis=1)  # P: i -> i + 1
    for radices in lists:
        place = 1
        for radix in radices:
            a = sum(np.linalg.matrix_power(shift, j * place) for j in range(radix))
            ones = np.ones((widths[len(layers)], widths[len(layers) + 1]), dtype=object)
            layers.append(np.kron(ones, a))
            place *= radix
    return layers


@few
@given(nets())
def test_masks_properties_and_paths_are_those_of_the_definition(case):
    lists, widths = case
    net, expected = radix_net(lists, widths), by_definition(lists, widths)
    found = net.masks()
    assert len(found) == len(expected)
    for i, (mask, layer) in enumerate(zip(found, expected, strict=True)):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask.astype(int), layer.astype(int))
        assert set(mask.sum(1)) == {net.out_degrees[i]}
        assert set(mask.sum(0)) == {net.in_degrees[i]}
        assert mask.sum() == net.connections[i]
        assert mask.shape == net.sizes[i : i + 2]
    assert net.density == Fraction(sum(int(m.sum()) for m in found), sum(m.size for m in found))
    product = expected[0]
    for layer in expected[1:]:
        product = product @ layer
    assert set(product.ravel()) == {net.paths}
    counted = count_paths(found)
    assert counted.least == counted.most == net.paths
    assert counted.total == net.paths * product.size


def test_examples_by_hand():
    plain = radix_net([(10, 10)], [1, 1, 1])
    assert (plain.order, plain.sizes, plain.connections, plain.paths) == (100, (100, 100, 100), (1000, 1000), 1)
    wide = radix_net([(10, 10)], [8, 3, 1])
    assert wide.connections == (24000, 3000)  # 100 · 10 · 8 · 3 and 100 · 10 · 3 · 1
    assert wide.paths == 3  # through any of the three copies of the one hidden neuron
    assert (wide.out_degrees, wide.in_degrees) == ((30, 10), (80, 30))
    assert wide.density == Fraction(1, 10)
    twice = radix_net([(2, 2, 2), (2, 2, 2)], [1] * 7)
    assert twice.paths == 8  # the product of the second list
    assert twice.density == Fraction(1, 4)  # 2 of 8
    np.testing.assert_array_equal(np.flatnonzero(twice.masks()[2][7]), [3, 7])  # v = 4: 7 and 7 + 4 mod 8
    part = radix_net([(2, 3), (3, 2), (3,)], [1] * 6)
    assert part.paths == 6 * 3


def test_paths_pass_64_bits():
    net = graph_challenge(10)
    assert net.sizes == (1024,) * 21
    assert net.paths == 32**18 == 2**90  # 32 · 32 for each list but the first
    counted = count_paths(net.masks())
    assert counted.least == counted.most == 2**90
    assert graph_challenge(1, 4).sizes == (4096,) * 3


INVALID = {
    "a list is empty": [([(10, 10), ()], [1] * 4), ([], [1]), ([()], [1])],
    "1 is no radix": [([(10, 1)], [1] * 3)],
    "-2 is no radix": [([(2, -2)], [1] * 3)],
    "the first has 100, another 20": [([(10, 10), (4, 5), (10, 10)], [1] * 7)],
    "3 does not divide 100": [([(10, 10), (3,)], [1] * 4)],
    "200 does not divide 100": [([(10, 10), (20, 10)], [1] * 5)],
    "need 3 widths, not 2": [([(10, 10)], [1, 1])],
    "0 is no width": [([(10, 10)], [1, 0, 1])],
    "are the most": [([(10**6, 10**6)], [1] * 3)],
}


@pytest.mark.parametrize("reason", INVALID)
def test_what_is_no_radix_net_says_why(reason):
    for lists, widths in INVALID[reason]:
        with pytest.raises(UserError, match=reason):
            radix_net(lists, widths)


def test_texts():
    assert parse_radix("2:2:2/2:4") == ((2, 2, 2), (2, 4))
    assert parse_radix("10") == ((10,),)
    assert show_lists(parse_radix("2:2:2/2:4")) == "2:2:2/2:4"
    assert parse_widths("8:3:1") == (8, 3, 1)
    for text in ("", "10:", "10:10/", "10;10", "a", "1.5", "10::10", "9999999999"):
        with pytest.raises(UserError, match="no list of integers: write 10:10"):
            parse_radix(text)
    with pytest.raises(UserError, match=r"widths '8,3' are no list of integers: write 8:3:1"):
        parse_widths("8,3")


# --- cropping --------------------------------------------------------------------------------------


@few
@given(st.data())
def test_cropping_leaves_out_the_last_neurons_and_connections_are_counted_without_it(data):
    order = data.draw(st.integers(1, 12))
    steps = tuple(sorted(data.draw(st.sets(st.integers(0, order - 1), min_size=1))))
    inputs, outputs = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    graph = Circulant(order, steps)
    base = np.zeros((order, order), bool)
    for i in range(order):
        base[i, [(i + step) % order for step in steps]] = True
    whole = np.kron(np.ones((30, 30), bool), base)[:inputs, :outputs]
    np.testing.assert_array_equal(graph.mask(inputs, outputs), whole)
    by_step = connections_by_step(order, inputs, outputs, np.array(steps))
    assert by_step.tolist() == [Circulant(order, (step,)).mask(inputs, outputs).sum() for step in steps]
    assert graph.connects(inputs, outputs) == (whole.any(0).all() and whole.any(1).all())


def test_kernels_are_cut_to_size_and_the_line_says_what_is_missing():
    masks, line = radix_topology(THREE, ((10, 10),), (8, 3, 1), None)
    whole = radix_net([(10, 10)], [8, 3, 1]).masks()
    np.testing.assert_array_equal(masks["dense_0/kernel"], whole[0][:784])
    np.testing.assert_array_equal(masks["dense_1/kernel"], whole[1])
    counted = count_paths(list(masks.values()))
    assert counted.least == counted.most == 3  # inputs are missing, and no path between others goes through these
    # places 84 to 99 of the last copy are cut: output 99 has lost all its 10 inputs 90 … 99 there, output 50 none
    assert line == (
        "cut: the last 16 of 800 neurons before dense_0; no longer constant: in-degree of dense_0 70 to 80"
    )
    np.testing.assert_equal(radix_topology(THREE, ((10, 10),), None, None)[0], masks)  # the least widths
    exact = {"dense_0/kernel": (800, 300), "dense_1/kernel": (300, 100)}
    assert radix_topology(exact, ((10, 10),), None, None)[1] is None


def test_hidden_neurons_that_are_cut_cost_equality():
    """A path goes through one of two copies of one place; of places 90 to 99 the second copy is cut."""
    kernels = {"dense_0/kernel": (100, 190), "dense_1/kernel": (190, 100)}
    masks, line = radix_topology(kernels, ((10, 10),), None, None)
    assert line == (
        "cut: the last 10 of 200 neurons before dense_1; no longer constant: out-degree of dense_0 10 to 20; "
        "hidden neurons are missing, so that pairs need not have equally many paths"
    )  # every output loses one of its 20 inputs, which are i, i + 10, …
    counted = count_paths(list(masks.values()))
    assert (counted.least, counted.most) == (1, 2)


def test_convolutions_have_whole_taps_and_flattened_positions_the_same_graph():
    convolutions = {"conv_0/kernel": (3, 3, 4, 8), "conv_1/kernel": (2, 2, 8, 4)}
    kernels = convolutions | {"dense_0/kernel": (5 * 4, 8), "output/kernel": (8, 4)}
    assert layers_of(kernels) == Layers((4, 8, 4, 8, 4), (9, 4, 5, 1))
    net = radix_net([(2, 2), (2, 2)], [1, 2, 1, 2, 1])
    masks, graphs = radix_masks(net, kernels), net.masks()
    assert {name: mask.shape for name, mask in masks.items()} == kernels
    for tap in itertools.product(range(3), range(3)):
        np.testing.assert_array_equal(masks["conv_0/kernel"][tap], graphs[0])
    for position in range(5):  # the channel is the fastest
        np.testing.assert_array_equal(masks["dense_0/kernel"][4 * position : 4 * position + 4], graphs[2])
    counted = count_paths(list(masks.values()))
    assert counted.least == counted.most == net.paths


def test_what_the_cut_line_leaves_out_is_counted():
    kernels = {f"dense_{i}/kernel": (7, 7) for i in range(4)}
    masks, line = radix_topology(kernels, ((2, 2, 2), (2,)), None, None)
    lost = ", ".join(f"1 of 8 neurons before dense_{i}" for i in range(4))
    assert line.startswith(f"cut: the last {lost} and 1 others; no longer constant: in-degree of dense_0 1 to 2, ")
    kernels = {"dense_0/kernel": (8, 8), "dense_1/kernel": (8, 7)}
    line = radix_topology(kernels, ((2, 4),), None, None)[1]
    assert line == "cut: the last 1 of 8 neurons after dense_1; no longer constant: out-degree of dense_1 3 to 4"
    assert cut(masks, (7,) * 5) is None


REFUSED = {
    r"10:10: 2 of them for 3 layers with a mask \(a, b, c\).+--dense_layers": (((10, 10),), (8, 8, 8, 8)),
    r"a layer of 8 neurons does not fit into 4 .+ widths 2:2:2": (((2, 2),), (8, 8, 8)),
    # outputs 0, 1, 2 read what is 0, 1, 2 modulo 8
    r"cut to 64 × 3, b has 40 inputs without a connection.+--dense_layers=output": (((8, 8),), (64, 64, 3)),
    r"cut to 1 × 64, a has 56 outputs without a connection": (((8, 8),), (1, 64, 64)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_kernels_that_a_net_does_not_fit_are_refused(reason):
    lists, sizes = REFUSED[reason]
    kernels = {f"{name}/kernel": pair for name, pair in zip("abc", itertools.pairwise(sizes), strict=False)}
    widths = (1, 1, 1) if "fit" in reason else None
    with pytest.raises(UserError, match=reason):
        radix_topology(kernels, lists, widths, None)


def test_kernels_that_are_not_in_series_are_refused():
    for second in ((30, 10), (3, 3, 20, 10)):
        with pytest.raises(UserError, match=rf"b has {second[-2]} inputs, and a before it has 10 outputs"):
            layers_of({"a/kernel": (20, 10), "b/kernel": second})
    with pytest.raises(UserError, match="no layer"):
        layers_of({})
    with pytest.raises(UserError, match="a is too large for a mask: 65,536 × 65,536"):
        kernel_masks([Circulant(2, (0,))], {"a/kernel": (2**16, 2**16)})


# --- the nearest net -------------------------------------------------------------------------------


def distance(lists, layers, density):
    """Of a net cropped to the layers, from its masks; None if a neuron is left without a connection."""
    order = math.prod(lists[0])
    widths = [-(-size // order) for size in layers.sizes]
    whole = radix_net(lists, widths).masks()
    cropped = [mask[:a, :b] for mask, (a, b) in zip(whole, itertools.pairwise(layers.sizes), strict=True)]
    if not all(mask.any(0).all() and mask.any(1).all() for mask in cropped):
        return None
    entries = sum(mask.size * copies for mask, copies in zip(cropped, layers.copies, strict=True))
    squares = sum(
        mask.size * copies / entries * math.log(mask.mean() / density) ** 2
        for mask, copies in zip(cropped, layers.copies, strict=True)
    )
    beyond = sum(math.log(order * width / size) for width, size in zip(widths, layers.sizes, strict=True))
    return math.sqrt(squares) + beyond


def repeated(radices, count):
    lists = [radices] * (count // len(radices))
    return lists + [radices[: count % len(radices)]] * (count % len(radices) > 0)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 14), min_size=2, max_size=5).filter(lambda sizes: max(sizes) > 1),
    st.floats(0.02, 1), st.lists(st.integers(1, 4), min_size=4, max_size=4),
)  # fmt: skip
@example([5, 4, 5], 0.03, [1] * 4)  # 2:3 would leave a neuron without a connection, 5 is dense and less wide
@example([1, 4, 7], 0.38, [1] * 4)
@example([3, 4, 5], 0.166, [1] * 4)
@example([12, 12, 12, 12, 12], 0.3, [1, 2, 3, 4])  # a radix counts in each layer that repeats it
def test_no_other_net_is_nearer(sizes, density, copies):
    layers = Layers(tuple(sizes), tuple(copies[: len(sizes) - 1]))
    count = len(layers.copies)
    least = min(
        found
        for order in range(2, 2 * max(sizes) + 1)
        for radices in factorizations(order) if len(radices) <= count
        for found in [distance(repeated(radices, count), layers, density)] if found is not None
    )  # fmt: skip
    dense = min(distance([(order,)] * count, layers, density) for order in range(2, 2 * max(sizes) + 1))
    if density < 1 and dense <= least + 1e-12:
        with pytest.raises(UserError, match="is dense"):
            nearest(layers, density)
    else:
        net = nearest(layers, density)
        assert math.isclose(distance(net.lists, layers, density), least, abs_tol=1e-12)
        assert radix_masks(net, {str(i): pair for i, pair in enumerate(itertools.pairwise(sizes))})


@pytest.mark.parametrize(
    ("sizes", "density", "lists", "widths"),
    [
        ((784, 300, 100), 0.1, "10:10", (8, 3, 1)),
        ((1000,) * 4, 0.01, "10:10:10", (1,) * 4),
        ((16,) * 5, 0.25, "4:4/4:4", (1,) * 5),  # 2:2:2/2, N' = 8, is as dense; the larger N' wins
        ((1024,) * 121, 1 / 32, "/".join(["32:32"] * 60), (1,) * 121),
        ((100, 100), 1.0, "100", (1, 1)),
    ],
)
def test_nearest_by_hand(sizes, density, lists, widths):
    net = nearest(Layers(sizes, (1,) * (len(sizes) - 1)), density)
    assert (show_lists(net.lists), net.widths) == (lists, widths)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_lists_are_searched_by_what_their_masks_amount_to(data):
    """Of every radix at every place, in layers of any size: infinite iff a neuron is left without a connection."""
    order = data.draw(st.sampled_from([2, 4, 6, 8, 12, 16, 18]))
    place = data.draw(st.sampled_from([d for d in range(1, order) if order % d == 0]))
    layers = Layers(tuple(data.draw(st.lists(st.integers(1, 20), min_size=3, max_size=3))), (2, 3))
    radices, costs = _costs(order, place, layers, 0.3)
    assert radices == [r for r in range(2, order + 1) if order // place % r == 0]
    for radix, row in zip(radices, costs, strict=True):
        for pair, copies, cost in zip(layers.pairs, layers.copies, row, strict=True):
            mask = Circulant(order, tuple(range(0, radix * place, place))).mask(*pair)
            if mask.any(0).all() and mask.any(1).all():
                assert cost == pytest.approx(mask.size * copies / layers.entries * math.log(mask.mean() / 0.3) ** 2)
            else:
                assert cost == math.inf


def test_the_copies_of_a_kernel_count():
    """Of two layers with N' = 36, 4:9 and 9:4 are as near to 1/6 as each other, unless one has more entries."""
    sizes = (36, 36, 36)
    for copies, smaller in (((1, 50), 1), ((50, 1), 0)):
        net = nearest(Layers(sizes, copies), 4 / 36)
        assert net.radices[smaller] == 4


@pytest.mark.parametrize(("sizes", "density"), [((784, 300), 0.1), ((1, 20, 50), 0.1), ((8, 8, 8), 0.9)])
def test_where_no_sparse_net_is_near_it_says_so(sizes, density):
    with pytest.raises(UserError, match=rf"density {density} for layers of {', '.join(map(str, sizes))} is dense"):
        nearest(Layers(sizes, (1,) * (len(sizes) - 1)), density)


def test_the_line_of_a_nearest_net_says_its_density():
    masks, line = radix_topology({"dense_0/kernel": (64, 24), "dense_1/kernel": (24, 12)}, None, None, 0.2)
    density = sum(mask.sum() for mask in masks.values()) / (64 * 24 + 24 * 12)
    assert line.startswith(f"nearest to density 0.2: RadiX-Net 3:4 with widths 6:2:1, density {density:.4g}; cut: the")
    assert re.search(r"8 of 72 neurons before dense_0", line)
    exact = radix_topology({"a/kernel": (1000, 1000), "b/kernel": (1000, 100)}, None, None, 0.1)[1]
    assert exact == "nearest to density 0.1: RadiX-Net 10:10 with widths 10:10:1, density 0.1"
