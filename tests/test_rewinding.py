"""Methods that prune over time, and those that go back in time after it: counts, weights, slots, learning rate."""

import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_jax.study.resolve import connections_of, timed
from sparse_jax.study.sources import Lent
from sparse_jax.training.timeline import level_steps, update_due
from tests import oracle, oracle_methods
from tests.oracle_methods import FULL, LAYERS, batch_of, check_grown, kernels_of, masks_of, slopes_of, total
from tests.test_laws import compiled, equal, optimizer_of
from tests.test_methods import SHARE, run, updates_of
from tests.tiny import make_config, make_data, make_hyper, make_tiny_problem


def test_ac_dc_is_dense_and_sparse_in_turn_and_sparse_at_the_end():
    config = make_config("ac_dc")
    hyper = make_hyper(config, start=FULL)
    pairs = updates_of(config, hyper, 13)
    for left, (before, after) in zip(reversed(range(13)), pairs, strict=True):
        for name, mask in masks_of(after).items():
            old, new = kernels_of(before)[name], kernels_of(after)[name]
            if left % 2:
                assert mask.all()
                np.testing.assert_array_equal(new, old)
            else:
                largest = oracle.top_k(np.abs(old), int(hyper.counts[name]), masks_of(before)[name])
                np.testing.assert_array_equal(mask, largest)
                np.testing.assert_array_equal(new, np.where(largest, old, 0))
    assert 0 < total(masks_of(pairs[-1][1])) == sum(hyper.counts.values()) < sum(FULL.values())


@pytest.mark.parametrize("method", ["gmp", pytest.param("granet", marks=pytest.mark.slow)])
def test_pruning_follows_the_cubic_formula_at_every_update(method):
    """Six updates: in the middle the sparsity is s_f + (s_0 − s_f)/8."""
    pairs, hyper = run(method, 6, interval=6)
    for i, (before, after) in enumerate(pairs, start=1):
        for name, mask in masks_of(after).items():
            start, final = (1 - int(counts[name]) / mask.size for counts in (hyper.start, hyper.counts))
            sparsity = oracle_methods.cubic_sparsity(start, final, i, 6)
            assert abs(mask.sum() - mask.size * (1 - sparsity)) <= 0.501
            assert i != 3 or sparsity == pytest.approx(final + (start - final) / 8)
            assert i < 6 or mask.sum() == hyper.counts[name]
            check_pruned(method, before, after, name, int(mask.sum()))


def check_pruned(method, before, after, name, count):
    """Prune to the count by |w|; then GraNet moves ζ of what is left to the largest |∂L/∂w|."""
    old, mask = kernels_of(before)[name], masks_of(after)[name]
    kept = oracle.top_k(np.abs(old), count, masks_of(before)[name])
    if method == "gmp":
        np.testing.assert_array_equal(mask, kept)
        return
    moved = oracle_methods.moves(SHARE, kept)
    survivors = oracle.top_k(np.abs(old), count - moved, kept)
    np.testing.assert_array_equal(kernels_of(after)[name], np.where(survivors, old, 0))
    check_grown(mask, survivors, np.abs(slopes_of(before)[name]))


# --- going back ------------------------------------------------------------------------------------

STEPS, LEVELS, BACK_TO, FIRST = 40, 3, 2, 11  # 11 + 3 (11 − 2) = 38 steps, and 2 left over


@functools.cache
def course(method, back_to, first, **changes):
    """(config, hyper, the state at every step, {step: the state after a pruning at it})."""
    config = make_config(method, levels=LEVELS, rewind_to=back_to, interval=first, **changes)
    fns, data, problem = compiled(config), make_data(), make_tiny_problem(config)
    hyper = make_hyper(config, start=FULL)
    state = fns.init(hyper, data)
    trained, pruned = [state], {}
    for step in range(STEPS):
        if update_due(config, problem, step):
            state = pruned[step] = fns.update(state, hyper, data)
        state = fns.steps(state, hyper, data, jnp.int32(1))
        trained.append(state)
    return config, hyper, trained, pruned


def slots_are_zero(config, hyper, state):
    slots = []
    optax.tree.map_params(
        optimizer_of(config, hyper), lambda slot: slots.append(bool((slot == 0).all())), state.opt_state
    )
    return slots and all(slots)


@pytest.mark.parametrize("method", ["lottery_ticket", "lr_rewinding"])
def test_the_levels_prune_the_same_share_each_time_and_end_exactly(method):
    _, hyper, trained, pruned = course(method, BACK_TO, FIRST)
    assert sorted(pruned) == [11, 20, 29]
    for level, step in enumerate(sorted(pruned), start=1):
        before, after = trained[step].topology.masks, pruned[step].topology.masks
        for name, kernel in kernels_of(trained[step]).items():
            start, final, count = FULL[name], int(hyper.counts[name]), int(after[name].sum())
            assert abs(count - start * (final / start) ** (level / LEVELS)) <= 0.501
            assert level < LEVELS or count == final
            largest = oracle.top_k(np.abs(kernel), count, np.asarray(before[name]))
            np.testing.assert_array_equal(after[name], largest)
    equal(pruned[29].topology.masks, trained[-1].topology.masks)


@pytest.mark.parametrize("back_to", [0, BACK_TO])
def test_a_ticket_gets_the_weights_of_the_step_gone_back_to_bit_for_bit(back_to):
    config, hyper, trained, pruned = course("lottery_ticket", back_to, 10 if back_to == 0 else FIRST)
    origin = trained[back_to].params
    if back_to == 0:  # the same draw as that of a network without masks
        dense = make_config("dense")
        equal(origin, compiled(dense).init(make_hyper(dense), make_data()).params)
    assert len(pruned) == LEVELS
    for step, state in pruned.items():
        for name in LAYERS:
            old, new = origin[name]["kernel"], state.params[name]["kernel"]
            mask = np.asarray(state.topology.masks[f"{name}/kernel"])
            np.testing.assert_array_equal(new, np.where(mask, old, 0))
            np.testing.assert_array_equal(state.params[name]["bias"], origin[name]["bias"])
        assert slots_are_zero(config, hyper, state)
        assert not slots_are_zero(config, hyper, trained[step])


def test_learning_rate_rewinding_leaves_the_weights():
    config, hyper, trained, pruned = course("lr_rewinding", BACK_TO, FIRST)
    for step, state in pruned.items():
        for name in LAYERS:
            mask = np.asarray(state.topology.masks[f"{name}/kernel"])
            trained_on = trained[step].params[name]
            np.testing.assert_array_equal(state.params[name]["kernel"], np.where(mask, trained_on["kernel"], 0))
            np.testing.assert_array_equal(state.params[name]["bias"], trained_on["bias"])
            assert (trained_on["bias"] != trained[BACK_TO].params[name]["bias"]).any()
        assert slots_are_zero(config, hyper, state)


DECAYS = {"lr_decay_at": (0.5, 0.75), "lr_decay_factor": 0.1}
CLOCKS = [("lottery_ticket", BACK_TO, FIRST, "cosine"), ("lr_rewinding", BACK_TO, FIRST, "step")]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "back_to", "first", "schedule"), CLOCKS)
def test_the_clock_of_the_learning_rate_is_set_back_at_every_pruning(method, back_to, first, schedule):
    """With plain gradient descent a step is −η d, d the gradient and the decay: η is how far it goes along d."""
    _, hyper, trained, pruned = course(method, back_to, first, optimizer="sgd", lr_schedule=schedule, **DECAYS)
    clock, prunings = oracle_methods.rate_clock(first, back_to, LEVELS, STEPS)
    assert prunings == sorted(pruned)
    assert (len(prunings), clock[first], clock[-1]) == (LEVELS, back_to, first)
    for step in range(STEPS):
        before, after = kernels_of(start := pruned.get(step, trained[step])), kernels_of(trained[step + 1])
        _, slopes, _ = oracle_methods.gradients(before, *batch_of(start))
        moved, slope = [], []
        for name, mask in start.topology.masks.items():
            moved.append((before[name] - after[name])[np.asarray(mask)])
            slope.append((slopes[name] + float(hyper.weight_decay) * before[name])[np.asarray(mask)])
        moved, slope = np.concatenate(moved), np.concatenate(slope)
        expected = 0.1 * oracle_methods.rate_factor(schedule, clock[step], first)
        assert moved @ slope / (slope @ slope) == pytest.approx(expected, rel=2e-3, abs=1e-5), step
        np.testing.assert_allclose(moved, expected * slope, atol=1e-5)


def test_the_levels_fill_the_training():
    """T + L (T − k) ≤ steps with the largest T there is; L prunings come, the last one a whole level before the end."""
    config = make_config("lottery_ticket")
    problem = make_tiny_problem(config)
    for steps, levels, back_to in itertools.product((17, 40, 41, 97), (1, 2, 3, 5), (0, 1, 4)):
        sized = problem._replace(steps=steps)
        first = level_steps(sized, levels, back_to)
        assert first + levels * (first - back_to) <= steps < first + 1 + levels * (first + 1 - back_to)
        if first <= back_to:
            continue
        config = make_config("lottery_ticket", levels=levels, rewind_to=back_to, interval=first)
        _, prunings = oracle_methods.rate_clock(first, back_to, levels, steps)
        assert [step for step in range(steps) if update_due(config, sized, step)] == prunings
        assert len(prunings) == levels
        assert prunings[-1] <= steps - (first - back_to)


@pytest.mark.parametrize(
    ("sparsity", "levels"), [(0.15, 1), (0.2, 1), (0.488, 3), (0.5, 4), (0.6, 5), (0.67232, 5), (0.9, 11)]
)
def test_without_a_number_of_levels_each_takes_a_fifth(sparsity, levels):
    """The least L with 0.8^L at most the density: 0.8, 0.64, 0.512, 0.41, 0.328, …, 0.8^11 = 0.086."""
    config = make_config(
        "lottery_ticket", levels="auto", rewind_to="1", sparsity=sparsity, initial_sparsity=0.0, epochs=50
    )
    problem = make_tiny_problem(config)
    config = timed(config, problem, connections_of(config, problem, Lent()))
    assert (config.levels, config.rewind_to) == (levels, 1)
    assert config.interval == math.floor((200 + levels) / (levels + 1))
