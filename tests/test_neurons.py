"""Neurons that lose all their inputs, against NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparse_jax.topology.evolution import start_topology
from sparse_jax.topology.neurons import ablate, cut_off, inputs_of, places_of
from sparse_jax.topology.patterns import to_units
from tests import oracle
from tests.layers import OUTPUT, course_at, draw_weights, follow, make_rule

CUT = {"a/kernel": (6, 8), "conv/kernel": (2, 2, 2, 6), OUTPUT: (6, 4)}


def alive_after(importance, alive, share):
    """Without the ⌊q n⌋ of the n alive neurons whose importance is least; of equals the later ones go."""
    n = int(alive.sum())
    return oracle.top_k(importance, n - int(np.floor(np.float32(share) * np.float32(n))), alive)


def importance_of(weight):
    return np.abs(weight).sum(tuple(range(weight.ndim - 1)))


@functools.cache
def compiled_cut(share):
    rule = make_rule("set", importance_pruning=share, importance_from=0.5)
    everything = {name: jnp.ones(shape, bool) for name, shape in CUT.items()}
    empty = start_topology(rule, everything, everything)

    def cut(made, masks, alive, counts, weights):
        topology = empty._replace(masks=masks, alive=alive, counts=counts)
        return cut_off(rule, course_at(made, 10), topology, weights)

    return jax.jit(cut)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0.1, 0.25, 0.9]),
    st.integers(1, 10),
    st.fixed_dictionaries({n: hnp.arrays(np.int8, s, elements=st.integers(-3, 3)) for n, s in CUT.items()}),
    st.fixed_dictionaries({n: hnp.arrays(bool, s[-1:]).filter(np.any) for n, s in CUT.items()}),
)
def test_the_least_important_hidden_neurons_lose_their_inputs(share, made, weights, alive):
    alive[OUTPUT][:] = True
    weights = {n: np.where(alive[n], w, 0).astype(np.float32) for n, w in weights.items()}
    masks = {name: weight != 0 for name, weight in weights.items()}
    counts = {name: np.int32(mask.sum() + 7) for name, mask in masks.items()}
    new = compiled_cut(share)(jnp.int32(made), masks, alive, counts, weights)
    for name, mask in masks.items():
        expected = alive[name]
        if made >= 5 and name != OUTPUT:
            expected = alive_after(importance_of(weights[name]), alive[name], share)
            assert alive[name].sum() - expected.sum() == int(share * alive[name].sum())
        np.testing.assert_array_equal(new.alive[name], expected)
        assert expected.any()
        np.testing.assert_array_equal(new.masks[name], mask & expected)
        gone = int((mask & ~expected).sum())
        assert new.counts[name] == counts[name] - gone


def test_places_are_the_inputs_of_the_living():
    alive = {"a/kernel": jnp.array([True, False, True]), "b/kernel": jnp.array([False, True])}
    masks = {"a/kernel": jnp.zeros((2, 3), bool), "b/kernel": jnp.zeros((1, 2, 2, 2), bool)}
    assert inputs_of(alive["a/kernel"], masks["a/kernel"]).tolist() == [[True, False, True]] * 2
    topology = start_topology(make_rule("set", importance_pruning=0.5), masks, masks)
    assert all(place.all() for place in places_of(topology).values())
    assert all(place.all() for place in places_of(topology._replace(alive=None)).values())
    places = places_of(topology._replace(alive=alive))
    assert places["b/kernel"].shape == (1, 2, 2, 2)
    assert not places["b/kernel"][..., 0].any()
    assert places["b/kernel"][..., 1].all()


SHAPES = {"a/kernel": (9, 8), OUTPUT: (8, 4)}
FINAL = {"a/kernel": 27, OUTPUT: 12}
START = {
    "set": FINAL,
    "rigl": FINAL,
    "gmp": {"a/kernel": 63, OUTPUT: 24},
    "granet": {"a/kernel": 63, OUTPUT: 24},
    "ac_dc": {"a/kernel": 72, OUTPUT: 32},
    "mest_soft": {"a/kernel": 35, OUTPUT: 15},
}
UPDATES, SHARE, FROM = 5, 0.25, 0.6  # cut by the third update and the later ones: 8 neurons, 6, 5 and 4


def entitled(method, name, alive, neurons, made):
    """The connections that belong to the neurons alive: of the cubic, the cyclic and the soft count, rounded down."""
    start, final, left = START[method][name], FINAL[name], UPDATES - made
    counts = {
        "gmp": final + round((start - final) * (1 - made / UPDATES) ** 3),
        "granet": final + round((start - final) * (1 - made / UPDATES) ** 3),
        "ac_dc": start if left % 2 else final,
        "mest_soft": final + (int(0.3 * final) if left else 0),
    }
    return counts[method] * alive // neurons


@pytest.mark.parametrize("method", START)
def test_a_cut_layer_stays_smaller(method):
    rule = make_rule(method, importance_pruning=SHARE, importance_from=FROM, drop_score="magnitude")
    for update in follow(rule, 20, UPDATES, SHAPES, START[method], FINAL):
        made = update.number
        for name, mask in update.after.masks.items():
            before, alive = update.before, update.after.alive[name]
            expected = before.alive[name]
            if name != OUTPUT and made >= UPDATES * FROM:
                expected = alive_after(importance_of(update.weights[name]), expected, SHARE)
            np.testing.assert_array_equal(alive, expected)
            assert not mask[:, ~alive].any()
            gone = int((before.masks[name] & ~alive).sum())
            if rule.count == "constant":
                assert mask.sum() == before.masks[name].sum() - gone == update.after.counts[name]
            else:
                most = mask.size * int(alive.sum()) // alive.size if rule.grows else before.masks[name].sum() - gone
                assert mask.sum() == min(most, entitled(method, name, int(alive.sum()), alive.size, made))
            assert mask.any()
            kept = update.survivors[name]
            assert not (kept & ~(before.masks[name] & mask)).any()
            assert rule.grows or (mask == kept).all()
        lost = sum(int((update.before.masks[n] & ~update.survivors[n]).sum()) for n in SHAPES)
        assert update.moved == lost
        assert update.after.alive["a/kernel"].sum() == [8, 8, 6, 5, 4][made - 1]
        assert update.after.alive[OUTPUT].all()


@pytest.mark.parametrize("method", ["gmp", "rigl"])
def test_a_structure_outlives_the_neurons_that_are_cut_off(method):
    shapes, final = {"a/kernel": (12, 8), OUTPUT: (8, 4)}, {"a/kernel": 48, OUTPUT: 16}
    start = {n: int(np.prod(shape)) for n, shape in shapes.items()} if method == "gmp" else final
    rule = make_rule(method, "2:4", importance_pruning=SHARE, importance_from=FROM)
    for update in follow(rule, 21, UPDATES, shapes, start, final):
        groups = to_units(rule.pattern, np.asarray(update.after.masks["a/kernel"])).sum((1, 2))
        alive = np.repeat(np.asarray(update.after.alive["a/kernel"]), 3)
        assert not groups[~alive].any()
        assert len(set(groups[alive])) == 1
        if update.number == UPDATES:
            assert set(groups[alive]) == {2}


def test_a_layer_whose_living_neurons_are_full_moves_nothing():
    rule = make_rule("set_magnitude", importance_pruning=0.5, importance_from=0.0)
    full = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    for update in follow(rule, 22, 2, SHAPES, full, full):
        for name, mask in update.after.masks.items():
            np.testing.assert_array_equal(mask, update.survivors[name])


def ablated(growth, survivors, alive, count, share):
    """SRigL: who keeps fewer than max(1, ⌈γ k⌉) salient connections goes; k is the fan-in of the layer's count.

    But as many stay as it takes to hold them all, the most salient.
    """
    stay = survivors & alive[:, None]
    salient = (stay | oracle.top_k(growth, count - int(stay.sum()), alive[:, None] & ~stay)).sum(1)
    fan_in = count // int(alive.sum())
    enough = alive & (salient >= max(1, int(np.ceil(np.float32(share) * np.float32(fan_in)))))
    needed = max(int(enough.sum()), math.ceil(count / growth.shape[1]))
    return oracle.top_k(salient, min(needed, int(alive.sum())), alive)


@functools.cache
def compiled_ablation(share):
    rule = make_rule("srigl", "fan_in", ablation=share)

    def run(growth, survivors, alive, count):
        everything = {name: jnp.ones((6, n), bool) for name, n in (("a", 7), (OUTPUT, 7))}
        topology = start_topology(rule, everything, everything)
        topology = topology._replace(alive={"a": alive, OUTPUT: alive})
        twice = [{"a": x, OUTPUT: x} for x in (growth, survivors, count)]
        new = ablate(rule, *twice, topology)
        return new.alive, new.masks

    return jax.jit(run)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([0.3, 0.5, 1.0]),
    hnp.arrays(np.int8, (7, 6), elements=st.integers(0, 9)),
    hnp.arrays(bool, (7, 6)),
    hnp.arrays(bool, 7).filter(np.any),
    st.integers(0, 30),
)
def test_neurons_with_few_salient_connections_are_ablated(share, growth, survivors, alive, more):
    survivors &= alive[:, None]
    count = int(survivors.sum()) + more
    new, masks = compiled_ablation(share)(growth.astype(np.float32), survivors, alive, jnp.int32(count))
    kept = np.asarray(new["a"])
    np.testing.assert_array_equal(kept, ablated(growth, survivors, alive, count, share))
    np.testing.assert_array_equal(masks["a"], np.broadcast_to(kept, (6, 7)))
    np.testing.assert_array_equal(new[OUTPUT], alive)


def test_ablation_by_hand():
    # Twelve connections of three neurons: a fan-in of 4, and ⌈0.5 · 4⌉ = 2 are needed. The last neuron keeps one, and
    # the one place that it could grow in does not rank among the 12 − 9 best: it goes.
    survivors = np.zeros((7, 6), bool)
    survivors[0, :4] = survivors[1, :4] = survivors[2, 0] = True
    growth = np.zeros((7, 6), np.float32)
    growth[0, 4:], growth[1, 4], growth[2, 5] = 3, 2, 1
    alive = np.arange(7) < 3
    kept, _ = compiled_ablation(0.5)(growth, survivors, alive, jnp.int32(12))
    assert kept["a"].tolist() == [True, True] + [False] * 5
    growth[2, 5] = 4  # now it does rank
    kept, _ = compiled_ablation(0.5)(growth, survivors, alive, jnp.int32(12))
    assert kept["a"].tolist() == alive.tolist()


def uneven(rng, name, shape):
    """Weights of very different size by neuron, so that some neurons lose nearly all of their inputs."""
    return draw_weights(rng, name, shape) * np.float32(4.0) ** rng.integers(-2, 3, shape[-1])


def test_srigl_keeps_one_fan_in_for_all_that_are_alive():
    start = {"a/kernel": 16, OUTPUT: 12}  # fan-in 2 of 9, 3 of 8
    rule = make_rule("srigl", "fan_in", ablation=0.9, drop_fraction=0.6)
    ablations = 0
    for update in follow(rule, 60, 4, SHAPES, start, start, uneven):
        for name, mask in update.after.masks.items():
            alive, degrees = update.after.alive[name], mask.sum(0)
            assert not (alive & ~update.before.alive[name]).any()
            assert (degrees[alive] == start[name] // alive.sum()).all()
            assert (degrees[~alive] == 0).all()
            expected = alive
            if name != OUTPUT:
                # what survives a drop of ⌊0.6 n⌋ of the layer's n connections, of equals those of the lower neurons
                weight, before = np.abs(update.weights[name]).T, update.before.masks[name].T
                n, places = np.float32(before.sum()), update.before.alive[name].sum() * np.float32(before.shape[1])
                share = np.minimum(np.float32(0.6), (places - n) / n)  # no more than there is room for
                stay = oracle.top_k(weight, int(n - np.floor(share * n)), before)
                growth = np.abs(update.gradients[name]).T
                expected = ablated(growth, stay, update.before.alive[name], start[name], 0.9)
            np.testing.assert_array_equal(alive, expected)
            assert alive.sum() * len(mask) >= start[name]
            assert not (update.survivors[name] & ~(update.before.masks[name] & alive)).any()
        assert update.after.alive[OUTPUT].all()
        hidden = [topology.alive["a/kernel"].sum() for topology in (update.before, update.after)]
        assert hidden[1] >= 1
        ablations += hidden[1] < hidden[0]
    assert ablations > 20
