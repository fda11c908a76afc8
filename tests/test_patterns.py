"""Structures of connections against brute force over their groups and units."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_jax.errors import UserError
from sparse_jax.topology.moves import choose
from sparse_jax.topology.patterns import Pattern, fitting, from_units, groups_of, keeps, parse_pattern, to_units
from sparse_jax.topology.pools import by_group
from tests import oracle
from tests.layers import follow, make_rule

STRUCTURES = ("fan_in", "2:4", "1:2", "4x4")
SHAPES = {"a/kernel": (8, 12), "conv/kernel": (2, 2, 4, 8)}
EVERY = ("none", *STRUCTURES, "3:4", "1:8", "1x1", "2x1", "1x4", "8x4")


def indices(structure, shape):
    """The flat indices into a kernel as [groups, units, connections of a unit], entry by entry."""
    inputs, outputs = int(np.prod(shape[:-1])), shape[-1]
    if structure == "none":
        return np.arange(inputs * outputs).reshape(1, -1, 1)
    if structure == "fan_in":
        return np.array([[[i * outputs + j] for i in range(inputs)] for j in range(outputs)])
    first, second = map(int, structure.replace("x", ":").split(":"))
    if ":" in structure:
        starts = range(0, inputs, second)
        return np.array([[[(i + k) * outputs + j] for k in range(second)] for j in range(outputs) for i in starts])
    corners = itertools.product(range(0, inputs, first), range(0, outputs, second))
    cells = list(itertools.product(range(first), range(second)))
    return np.array([[[(i + a) * outputs + j + b for a, b in cells] for i, j in corners]])


def in_units(structure, x):
    """The sum of every unit, [groups, units]; of bools whether all are set."""
    cells = np.asarray(x).ravel()[indices(structure, x.shape)]
    return cells.all(-1) if cells.dtype == bool else cells.sum(-1)


def of_units(structure, units, shape):
    """A mask from its active units."""
    mask = np.zeros(int(np.prod(shape)), bool)
    mask[indices(structure, shape)[units].ravel()] = True
    return mask.reshape(shape)


def draw(rng, structure, shape, active=None):
    """A mask with `active` units in every group."""
    groups, units, _ = indices(structure, shape).shape
    active = int(structure.split(":")[0]) if ":" in structure else active
    return of_units(structure, np.array([rng.permutation(units) < active for _ in range(groups)]), shape)


def test_structures_are_read():
    assert parse_pattern("none") == Pattern()
    assert parse_pattern("fan_in") == Pattern("fan_in")
    assert parse_pattern("2:4") == Pattern("n_of_m", 2, 4)
    assert parse_pattern("1:16") == Pattern("n_of_m", 1, 16)
    assert parse_pattern("4x2") == Pattern("block", 4, 2)
    assert [parse_pattern(text).unit for text in ("none", "fan_in", "2:4", "4x2")] == [1, 1, 1, 8]


@pytest.mark.parametrize(
    "text",
    [
        "", "fanin", "FAN_IN", "block", "4:2", "4:4", "0:4", "2:", ":4", "2:4:8", "2 : 4", "2:4 ", "2:4\n", "-1:4",
        "1.5:4", "0x4", "4x0", "4x", "x4", "4X4", "4x4x4", "-4x4",
    ],
)  # fmt: skip
def test_anything_else_is_no_structure(text):
    with pytest.raises(UserError, match="is no structure"):
        parse_pattern(text)


@pytest.mark.parametrize("structure", EVERY)
def test_units_are_where_the_table_says(structure):
    pattern = parse_pattern(structure)
    for shape in SHAPES.values():
        entries = np.arange(np.prod(shape)).reshape(shape)
        units = to_units(pattern, entries)
        np.testing.assert_array_equal(units, indices(structure, shape))
        assert groups_of(pattern, shape) == len(units)
        np.testing.assert_array_equal(from_units(pattern, units, shape), entries)
        np.testing.assert_array_equal(to_units(pattern, from_units(pattern, units, shape)), units)


@pytest.mark.parametrize(
    ("structure", "shape"),
    [("2:4", (6, 4)), ("1:2", (3, 3, 1, 8)), ("1:5", (8, 5)), ("4x4", (6, 8)), ("4x4", (8, 6)), ("2x1", (3, 1, 3, 4))],
)
def test_what_does_not_divide_a_kernel_is_refused(structure, shape):
    with pytest.raises(UserError, match="divide"):
        groups_of(parse_pattern(structure), shape)
    with pytest.raises(UserError, match="divide"):
        fitting(parse_pattern(structure), shape, 100)


@pytest.mark.parametrize("structure", EVERY)
def test_the_fitting_count_is_the_largest_there_is(structure):
    for shape in SHAPES.values():
        groups, units, unit = indices(structure, shape).shape
        possible = [groups * n * unit for n in range(units + 1)]
        for count in range(int(np.prod(shape)) + 1):
            assert fitting(parse_pattern(structure), shape, count) == max(n for n in possible if n <= count)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(["fan_in", "2:4", "3:4", "4x4", "2x1"]), st.sampled_from(sorted(SHAPES)),
    st.integers(2, 5), st.data(),
)  # fmt: skip
def test_one_flipped_connection_breaks_a_structure(seed, structure, layer, active, data):
    mask = draw(np.random.default_rng(seed), structure, SHAPES[layer], active)
    pattern = parse_pattern(structure)
    assert keeps(pattern, mask)
    mask.ravel()[data.draw(st.integers(0, mask.size - 1))] ^= True
    assert not keeps(pattern, mask)
    assert keeps(Pattern(), mask)


@pytest.mark.parametrize("structure", ["fan_in", "2:4", "1:2"])
def test_groups_may_be_empty_but_not_smaller(structure):
    pattern, shape = parse_pattern(structure), SHAPES["a/kernel"]
    mask = draw(np.random.default_rng(0), structure, shape, 4)
    first = indices(structure, shape)[0].ravel()
    mask.ravel()[first] = False
    assert keeps(pattern, mask)
    assert keeps(pattern, np.zeros_like(mask))
    mask.ravel()[first] = True
    assert not keeps(pattern, mask)


def test_n_of_m_is_n_and_not_another_number_in_every_group():
    shape = SHAPES["a/kernel"]
    for structure in ("1:4", "3:4"):
        assert not keeps(Pattern("n_of_m", 2, 4), draw(np.random.default_rng(0), structure, shape))


def test_counts_are_shared_by_the_groups_that_have_a_place():
    places = {"a": jnp.array([[True, False], [False, False], [True, True]])}
    assert by_group(make_rule("set", "fan_in"), {"a": jnp.int32(7)}, places)["a"].tolist() == [3, 0, 3]
    assert by_group(make_rule("set", "2x2"), {"a": jnp.int32(19)}, {"a": places["a"][:1]})["a"].tolist() == [4]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_units_of_largest_score_are_chosen(structure):
    rule, rng = make_rule("set_magnitude", structure), np.random.default_rng(1)
    chosen = jax.jit(lambda scores, counts: choose(rule, scores, counts))
    for _ in range(10):
        scores = {name: rng.integers(-5, 6, shape).astype(np.float32) for name, shape in SHAPES.items()}
        counts = {name: np.int32(rng.integers(score.size)) for name, score in scores.items()}
        for name, mask in chosen(scores, counts).items():
            units = in_units(structure, scores[name])
            each_group = int(counts[name]) // units.shape[0] // parse_pattern(structure).unit
            best = np.array([oracle.top_k(row, each_group, np.ones(row.size, bool)) for row in units])
            np.testing.assert_array_equal(mask, of_units(structure, best, mask.shape))


def most(score, number, eligible):
    """In every group the `number` eligible units of largest score."""
    return np.array([oracle.top_k(s, number, e) for s, e in zip(score, eligible, strict=True)])


FINAL = {  # 3 of 8 inputs and 5 of 16; half of all; 3 of 6 blocks and 3 of 8
    "fan_in": {"a/kernel": 36, "conv/kernel": 40},
    "2:4": {"a/kernel": 48, "conv/kernel": 64},
    "1:2": {"a/kernel": 48, "conv/kernel": 64},
    "4x4": {"a/kernel": 48, "conv/kernel": 48},
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("method", ["set_magnitude", "rigl"])
def test_updates_keep_the_structure_and_move_whole_units(method, structure):
    final = FINAL[structure]
    for update in follow(make_rule(method, structure, 0.4), 4, 3, SHAPES, final, final):
        for name, mask in update.after.masks.items():
            assert keeps(parse_pattern(structure), mask)
            assert mask.sum() == final[name]
            active = in_units(structure, update.before.masks[name])
            n = np.float32(active.sum())
            dropped = np.floor(min(np.float32(0.4), (active.size - n) / n) * n)  # the least of the whole layer
            stay = oracle.top_k(in_units(structure, np.abs(update.weights[name])), int(n - dropped), active)
            np.testing.assert_array_equal(update.survivors[name], of_units(structure, stay, mask.shape))
            units = in_units(structure, mask)
            assert not (stay & ~units).any()
            if method == "rigl":  # every group grows back to its number
                score, number = in_units(structure, np.abs(update.gradients[name])), int(n) // len(active)
                best = [oracle.grow(s, g, number) for s, g in zip(stay, score, strict=True)]
                np.testing.assert_array_equal(units, best)
            assert dropped > 0
        assert update.moved == sum(int((update.before.masks[n] & ~update.survivors[n]).sum()) for n in SHAPES)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_pruning_keeps_as_many_units_in_every_group(structure):
    start, final, updates = {n: int(np.prod(shape)) for n, shape in SHAPES.items()}, FINAL[structure], 3
    pattern = parse_pattern(structure)
    for update in follow(make_rule("gmp", structure), 4, updates, SHAPES, start, final):
        left = (1 - update.number / updates) ** 3
        for name, mask in update.after.masks.items():
            before, score = (in_units(structure, x) for x in (update.before.masks[name], np.abs(update.weights[name])))
            count = final[name] + round((start[name] - final[name]) * left)
            kept = most(score, count // pattern.unit // len(before), before)
            np.testing.assert_array_equal(mask, of_units(structure, kept, mask.shape))
            assert left or mask.sum() == final[name]
            assert keeps(pattern, mask) or (pattern.kind == "n_of_m" and left)
