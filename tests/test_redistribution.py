"""How layers share what was dropped in all of them, against exact water filling."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparse_jax.topology.criteria import Signals
from sparse_jax.topology.evolution import evolve, start_topology
from sparse_jax.topology.redistribution import SHARES, redistribute, share_out
from tests.layers import OUTPUT, SHAPES, course_at, draw_weights, follow, make_rule, random_mask

LAYERS = 4
ROOMS = st.lists(st.integers(0, 20), min_size=LAYERS, max_size=LAYERS)
shared = jax.jit(share_out)


def lists(elements):
    return st.lists(elements, min_size=LAYERS, max_size=LAYERS)


def share(total, shares, room):
    parts = np.asarray(shared(jnp.int32(total), jnp.array(shares, jnp.float32), jnp.array(room, jnp.int32)))
    assert parts.dtype == np.int32
    return [int(part) for part in parts]


def water_filling(total, shares, room):
    """The parts ∝ shares in exact fractions: whoever would pass its room is filled, the others share the rest."""
    shares = [Fraction(float(np.float32(share))) if space else 0 for share, space in zip(shares, room, strict=True)]
    shares = shares if any(shares) else [Fraction(space) for space in room]
    parts, unfilled = [Fraction(0)] * len(room), [i for i, share in enumerate(shares) if share]
    left = Fraction(min(max(total, 0), sum(room)))
    while unfilled:
        whole = sum(shares[i] for i in unfilled)
        full = [i for i in unfilled if left * shares[i] / whole >= room[i]]
        for i in full or unfilled:
            parts[i] = Fraction(room[i]) if full else left * shares[i] / whole
        if not full:
            break
        left -= sum(room[i] for i in full)
        unfilled = [i for i in unfilled if i not in full]
    return parts


def check_parts(parts, total, shares, room):
    """Exact in sum and within rooms; within one of the ideal parts; nothing without a share while others have room."""
    assert sum(parts) == min(max(total, 0), sum(room))
    assert all(0 <= part <= space for part, space in zip(parts, room, strict=True))
    with_room = any(share > 0 and part < space for part, share, space in zip(parts, shares, room, strict=True))
    if not any(share > 0 and space for share, space in zip(shares, room, strict=True)) or with_room:
        for part, ideal in zip(parts, water_filling(total, shares, room), strict=True):
            assert abs(part - ideal) < 1 + 1e-4
            assert ideal > 0 or part == 0


@settings(max_examples=150, deadline=None)
@given(
    st.integers(-3, 90),
    lists(st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(2**-20, 2**20, width=32))),
    ROOMS,
)
def test_parts_are_those_of_water_filling(total, shares, room):
    check_parts(share(total, shares, room), total, shares, room)


@settings(max_examples=100, deadline=None)
@given(st.integers(-3, 90), lists(st.sampled_from([np.nan, np.inf, 0.0, 1e-30, 1.0, 3e38])), ROOMS)
def test_sums_are_exact_whatever_the_shares(total, shares, room):
    parts = share(total, shares, room)
    assert sum(parts) == min(max(total, 0), sum(room))
    assert all(0 <= part <= space for part, space in zip(parts, room, strict=True))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 90), lists(st.sampled_from([np.nan, 0.0, 1.0, 3.0])), ROOMS)
def test_a_share_that_is_no_number_is_none(total, shares, room):
    assert share(total, shares, room) == share(total, np.nan_to_num(shares), room)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2**24 - 5, 2**31 - 1),
    lists(st.sampled_from([1.0, 3.0, 0.1, 1e-3])),
    lists(st.integers(2**20, 2**29 - 1)),
)
def test_more_than_float32_can_count(total, shares, room):
    parts = share(total, shares, room)
    assert sum(parts) == min(total, sum(room))
    for part, space, ideal in zip(parts, room, water_filling(total, shares, room), strict=True):
        assert 0 <= part <= space
        assert abs(part - ideal) < 1 + 1e-6 * total


def test_parts_by_hand():
    # 10 (3, 3, 1) / 7 = 4.29, 4.29, 1.43: the largest remainder gets what is left of 9
    assert share(10, [3, 3, 1, 0], [9, 9, 9, 9]) == [4, 4, 2, 0]
    # 12 (8, 1, 1) / 10 fills the first; (1, 1) / 2 of the 8 that are left fill the second, too; 5 are left
    assert share(12, [8, 1, 1, 0], [4, 3, 9, 9]) == [4, 3, 5, 0]
    # no share: by room, 6 (2, 4, 0, 6) / 12
    assert share(6, [0, 0, 0, 0], [2, 4, 0, 6]) == [1, 2, 0, 3]
    # more than there is room for, and less than nothing
    assert share(99, [1, 1, 1, 0], [2, 0, 3, 1]) == [2, 0, 3, 1]
    assert share(-4, [1, 1, 1, 1], [2, 2, 2, 2]) == [0, 0, 0, 0]
    # all have a share, the small ones no whole part: 3 (97, 1, 1, 1) / 100 = 2.91, 0.03, 0.03, 0.03
    assert share(3, [97, 1, 1, 1], [9, 9, 9, 9]) == [3, 0, 0, 0]
    # 60 (1, 3, 1, 0) / 5 of shares whose products pass float32
    assert share(60, [1e37, 3e37, 1e37, 0], [90, 90, 90, 90]) == [12, 36, 12, 0]
    # halves of 2^25 + 5 are no float32; what rounding leaves over does not go to who has no share
    parts = share(2**25 + 5, [0, 1, 1, 0], [10, 2**26, 2**26, 10])
    assert parts[0] == parts[3] == 0
    assert sum(parts) == 2**25 + 5


def shares_of(scope, survivors, before, signal):
    """By the papers: the mean of |momentum|, or of |gradient|, over what was active, or how many survive."""
    if scope == "survivors":
        return [float(mask.sum()) for mask in survivors]
    return [float(np.abs(x)[mask].mean()) if mask.any() else 0.0 for mask, x in zip(before, signal, strict=True)]


@pytest.mark.parametrize("scope", SHARES)
def test_the_whole_stays_and_is_shared_by_the_scope(scope):
    @jax.jit
    def after(before, survivors, values, room, counts):
        # weight, mask, explored, gradient, momentum, positive, rates
        seen = {n: Signals(None, mask, None, values[n], -values[n], None, {}) for n, mask in before.items()}
        return redistribute(SHARES[scope], survivors, seen, room, counts)

    rng = np.random.default_rng(0)
    all_grew = 0
    for _ in range(40):
        survivors = {name: rng.random(shape) < rng.choice([0, 0.2, 0.5]) for name, shape in SHAPES.items()}
        before = {name: mask | (rng.random(mask.shape) < rng.choice([0, 0.2])) for name, mask in survivors.items()}
        values = {n: rng.integers(-8, 9, shape) * np.float32(4.0 ** rng.integers(3)) for n, shape in SHAPES.items()}
        room = {name: np.int32(rng.integers(mask.size - mask.sum() + 1)) for name, mask in survivors.items()}
        kept = [int(mask.sum()) for mask in survivors.values()]
        counts = {name: np.int32(n + rng.integers(-4, 15)) for name, n in zip(SHAPES, kept, strict=True)}
        new = after(before, survivors, values, room, counts)
        assert list(new) == list(SHAPES)
        parts = [int(new[name]) - n for name, n in zip(SHAPES, kept, strict=True)]
        shares = shares_of(scope, survivors.values(), before.values(), values.values())
        check_parts(parts, int(sum(counts.values())) - sum(kept), shares, [int(n) for n in room.values()])
        all_grew += all(parts)
    assert all_grew > 3


START = {"a/kernel": 30, "b/kernel": 14, OUTPUT: 17}


def largest_last(rng, name, shape):
    """The last layer has the largest signals, so that its share passes its room."""
    return draw_weights(rng, name, shape) * (8 if name == OUTPUT else 1)


@pytest.mark.parametrize(("method", "scope"), [("snfs", "momentum"), ("rigl", "gradient"), ("set", "survivors")])
def test_updates_move_connections_between_layers_and_keep_their_number(method, scope):
    between, filled = 0, 0
    rule = make_rule(method, scope=scope, grow_score="random")
    for update in follow(rule, 8, 3, SHAPES, START, START, largest_last):
        counts = {name: int(mask.sum()) for name, mask in update.after.masks.items()}
        assert sum(counts.values()) == sum(START.values())
        assert counts == {name: int(n) for name, n in update.after.counts.items()}
        survivors = list(update.survivors.values())
        signal = update.gradients if update.before.momentum is None else update.before.momentum
        before = [update.before.masks[name] for name in update.survivors]
        shares = shares_of(scope, survivors, before, [signal[name] for name in update.survivors])
        grown = [counts[name] - int(mask.sum()) for name, mask in update.survivors.items()]
        assert sum(grown) == update.moved
        check_parts(grown, sum(grown), shares, [int((~mask).sum()) for mask in survivors])
        between += counts != {name: int(n) for name, n in update.before.counts.items()}
        filled += update.after.masks[OUTPUT].all()
    assert between
    assert filled or scope == "survivors"


def test_growth_within_a_layer_is_uniform():
    rule, rng = make_rule("set_magnitude", scope="survivors"), np.random.default_rng(0)
    counts = {name: jnp.int32(n) for name, n in START.items()}
    masks = {name: jnp.asarray(random_mask(rng, rule.pattern, SHAPES[name], n)) for name, n in START.items()}
    weights = {name: jnp.where(mask, draw_weights(rng, name, mask.shape), 0) for name, mask in masks.items()}
    topology = start_topology(rule, masks, weights)

    def one(key):
        return evolve(rule, key, course_at(1, 2), jnp.float32(0), counts, counts, topology, weights, None)

    new, info = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 4000))
    for name, masks in new.masks.items():
        survivors = np.asarray(info.survivors[name][0])
        assert (np.asarray(info.survivors[name]) == survivors).all()
        grown = np.asarray(masks.sum(0), float)[~survivors]
        share = grown.sum() / 4000 / grown.size
        assert (np.asarray(masks).sum((1, 2)) == int(new.counts[name][0])).all()
        # Without replacement the places vary less than multinomial counts: rescaled by (1 − share).
        statistic = ((grown - grown.mean()) ** 2).sum() / grown.mean() / (1 - share)
        assert 1e-4 < stats.chi2.sf(statistic, grown.size - 1) < 1 - 1e-4
