"""Orders of removal: ranks against a plain oracle, permutations, cuts, areas and correlations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparse_jax.analysis import curves
from sparse_jax.analysis.edits import EDITS, Given
from sparse_jax.analysis.importance import ORDERS, Signals, key_of, listed, ranks, shuffled, split
from sparse_jax.config import ABLATION_EDITS, ABLATION_ORDERS, ORDERS_BY_EXAMPLES
from sparse_jax.topology.selection import ordered_bits

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def test_names_are_those_of_the_configuration():
    assert tuple(ORDERS) == ABLATION_ORDERS
    assert tuple(EDITS) == ABLATION_EDITS
    assert {name for name, order in ORDERS.items() if order.needs} == set(ORDERS_BY_EXAMPLES)


@pytest.mark.parametrize("scope", ["layer", "global"])
@given(data=st.data())
def test_ranks_are_those_of_a_sort_in_plain_python(scope, data):
    sizes = data.draw(SIZES)
    n = sum(sizes)
    bits = data.draw(hnp.arrays(np.uint32, n, elements=st.sampled_from([0, 1, 2, 2**31, 2**32 - 1])))
    may = data.draw(hnp.arrays(bool, n))
    found = ranks(scope, bits, may, sizes)
    starts = [0, *np.cumsum(sizes)[:-1]] if scope == "layer" else [0]
    for start, size in zip(starts, sizes if scope == "layer" else [n], strict=True):
        order = sorted(range(start, start + size), key=lambda i: (not may[i], int(bits[i]) if may[i] else 0, i))
        assert [order.index(i) for i in range(start, start + size)] == found[start : start + size].tolist()


@given(data=st.data())
def test_a_permutation_moves_connections_within_their_layer_and_nothing_else(data):
    sizes = data.draw(SIZES)
    mask = data.draw(hnp.arrays(bool, sum(sizes)))
    bits = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 2**32, mask.size, np.uint32)
    source = shuffled(ranks("layer", bits, mask, sizes), mask, sizes)
    layer = np.repeat(np.arange(len(sizes)), sizes)
    assert sorted(source) == list(range(mask.size))
    assert (layer[source] == layer).all()
    assert (mask[source] == mask).all()
    assert (source[~mask] == np.flatnonzero(~mask)).all()


def test_every_permutation_of_three_connections_comes_about_equally_often():
    mask, counts, rng = np.array([True, False, True, True]), {}, np.random.default_rng(0)
    for _ in range(3000):
        bits = rng.integers(0, 2**32, 4, np.uint32)
        found = tuple(shuffled(ranks("layer", bits, mask, [4]), mask, [4]).tolist())
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 6
    assert all(abs(count - 500) < 5 * math.sqrt(500) for count in counts.values())


def test_lists_and_layers_are_the_same_entries():
    shapes = {"b": (2, 3), "a": (1, 2, 2)}
    arrays = {"a": np.arange(4.0).reshape(1, 2, 2), "b": np.array([[1.0], [2.0]])}
    whole = listed(arrays, shapes)
    assert whole.tolist() == [1, 1, 1, 2, 2, 2, 0, 1, 2, 3]
    back = split(whole, shapes)
    assert list(back) == ["b", "a"]
    assert back["a"].tolist() == arrays["a"].tolist()


# weight, gradient and mean input of six connections; the order in which they go, by hand
WEIGHT = jnp.array([0.5, -3.0, 1.0, -0.25, 2.0, 0.0])
SIGNALS = Signals(
    WEIGHT,
    gradient=jnp.array([4.0, 0.1, -1.0, 2.0, 0.2, 9.0]),  # |w g| = 2, .3, 1, .5, .4, 0
    inputs=jnp.array([1.0, 0.5, 4.0, 8.0, 0.5, 3.0]),  # |w| E|x| = .5, 1.5, 4, 2, 1, 0
    exact=jnp.array([0.1, -0.2, 0.3, 0.0, 0.5, 0.05]),
)
EXPECTED = {
    "smallest": [5, 3, 0, 2, 4, 1],
    "largest": [1, 4, 2, 0, 3, 5],
    "decile": [5, 3, 0, 2, 4, 1],
    "gradient": [5, 1, 4, 3, 2, 0],
    "activity": [5, 0, 4, 1, 3, 2],
    "leave_one_out": [1, 3, 5, 0, 2, 4],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_order_in_which_six_connections_go(name):
    bits = np.asarray(ordered_bits(ORDERS[name].score(jax.random.key(0), SIGNALS)))
    found = ranks("global", bits, np.ones(6, bool), [6])
    assert np.argsort(found).tolist() == EXPECTED[name]


def test_signs_are_candidates_of_their_own():
    assert np.asarray(ORDERS["positive"].candidates(WEIGHT)).tolist() == [True, False, True, False, True, False]
    assert np.asarray(ORDERS["negative"].candidates(WEIGHT)).tolist() == [False, True, False, True, False, False]
    assert all(ORDERS[name].candidates is None for name in ORDERS if name not in ("positive", "negative"))


def test_random_orders_have_keys_of_their_own():
    key = jax.random.key(3)
    drawn = {name: ORDERS[name].score(key_of(key, name), SIGNALS).tolist() for name in ("random", "positive")}
    assert drawn["random"] != drawn["positive"]
    assert ORDERS["random"].score(key_of(key, "random"), SIGNALS).tolist() == drawn["random"]


def test_edits_of_four_connections():
    given = Given(
        weight=jnp.array([1.0, -2.0, 9.0, -3.0, 0.0]), mask=jnp.array([True, True, False, True, True]),
        shuffled=jnp.array([-3.0, 0.0, 9.0, 1.0, -2.0]), fresh=jnp.array([5.0, 6.0, 7.0, 8.0, 9.0]),
    )  # fmt: skip
    on = np.asarray(given.mask)
    expected = {
        "unchanged": [1, -2, -3, 0],
        "magnitudes_shuffled": [3, -0.0, -1, 2],
        "signs_shuffled": [-1, 2, 3, -0.0],
        "weights_shuffled": [-3, 0, 1, -2],
        "mean_magnitude": [1.5, -1.5, -1.5, 1.5],  # (1 + 2 + 3 + 0) / 4
        "reinitialised": [5, 6, 8, 9],
    }
    assert {name: np.asarray(edit(given))[on].tolist() for name, edit in EDITS.items()} == expected


def test_an_empty_layer_keeps_its_mean_finite():
    nothing = jnp.zeros(2)
    assert EDITS["mean_magnitude"](Given(nothing, jnp.zeros(2, bool), nothing, nothing)).tolist() == [0, 0]


# --- curves -------------------------------------------------------------------------------------------


def test_an_area_by_hand_in_any_order():
    # (.5 · (1 + .5) + .5 · (.5 + .1)) / 2 = .525
    assert curves.area([1.0, 0.0, 0.5], [0.1, 1.0, 0.5]) == pytest.approx(0.525)
    assert curves.area([0.5, 0.25], [0.4, 0.4]) == pytest.approx(0.4)
    assert curves.area([0.5], [0.4]) is None


@given(st.integers(0, 10_000), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_bounds_are_whole_rising_and_complete(n, fractions):
    cuts = curves.cuts_of("smallest", [0.0, *sorted(fractions), 1.0])
    found = curves.bounds(cuts, n)
    assert (found[:, 0] == 0).all()
    assert found[0, 1] == 0
    assert found[-1, 1] == n
    assert (np.diff(found[:, 1]) >= 0).all()


@given(st.integers(0, 10_000))
def test_deciles_are_a_partition(n):
    found = curves.bounds(curves.cuts_of("decile", ()), n)
    assert found[0].tolist() == [0, 0]
    assert found[1, 0] == 0
    assert found[-1, 1] == n
    assert (found[2:, 0] == found[1:-1, 1]).all()
    assert np.ptp(found[1:, 1] - found[1:, 0]) <= 1


def test_losses_by_decile():
    points = [{"from": 0.1, "to": 0.2, "accuracy": 0.5}, {"from": 0.0, "to": 0.0, "accuracy": 0.9},
              {"from": 0.0, "to": 0.1, "accuracy": 0.8}]  # fmt: skip
    assert curves.decile_losses(points) == pytest.approx([0.1, 0.4])


def test_spearman_by_hand_and_where_there_is_none():
    # ranks 1 2 3 4 against 2 1 4 3: 1 − 6 · 4 / (4 · 15) = .6
    assert curves.spearman(np.array([1.0, 5, 9, 20]), np.array([3.0, 2, 8, 7])) == pytest.approx(0.6)
    assert curves.spearman(np.array([1.0, 2]), np.array([1.0, 2])) is None
    assert curves.spearman(np.ones(4), np.arange(4.0)) is None
    assert curves.spearman(np.array([1.0, 2, np.inf]), np.arange(3.0)) is None
