"""The moving average of the weights: by hand through births and deaths, and what is evaluated with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.topology.masks import apply_masks, select
from sparse_jax.training.average import Average, averaged_step, averaged_update
from sparse_jax.training.state import Tally
from tests.test_laws import compiled, equal
from tests.test_train import VALIDATION, evaluated
from tests.tiny import SIZES, make_config, make_data, make_hyper

NAMES = ("dense_0/kernel", "dense_1/kernel", "output/kernel")
HELD_OUT = slice(SIZES[0], SIZES[0] + VALIDATION)


def layer(kernel, bias):
    return Average({"a": {"kernel": jnp.array(kernel), "bias": jnp.array(bias)}}, {"mean": jnp.array(bias)})


def test_three_steps_an_update_and_another_step_by_hand():
    """β = 3/4, from step 26 on. Of 3 connections the first survives, the second dies, the third is born."""
    average = layer([4.0, 8.0, 0.0], [1.0])  # starts at the weights
    for weights in (layer([8.0, 4.0, 0.0], [1.0]), layer([0.0, 12.0, 0.0], [1.0]), layer([7.0, 3.0, 0.0], [5.0])):
        average = averaged_step(0.75, jnp.int32(26), average, weights)
    # 4 → 5 → 3.75 → 4.5625; 8 → 7 → 8.25 → 6.9375; 1 → 1 → 1 → 2
    equal(average, layer([4.5625, 6.9375, 0.0], [2.0]))
    survivors = {"a/kernel": jnp.array([True, False, False])}
    average = averaged_update(average, layer([7.0, 0.0, 0.5], [5.0]).params, survivors)
    equal(average, layer([4.5625, 0.0, 0.5], [2.0]))
    average = averaged_step(0.75, jnp.int32(30), average, layer([4.5625, 0.0, 8.5], [6.0]))
    equal(average, layer([4.5625, 0.0, 2.5], [3.0]))


def test_the_first_steps_forget_the_initial_weights():
    average = layer([10.0], [0.0])
    for step in range(3):  # shares 1/10, 2/11 and 3/12 of what was
        average = averaged_step(0.999, jnp.int32(step), average, layer([1.0], [0.0]))
    np.testing.assert_allclose(average.params["a"]["kernel"], [1 + 9 * (1 / 10) * (2 / 11) * (3 / 12)], rtol=1e-6)


def test_without_an_average_there_is_none():
    assert averaged_step(0.0, jnp.int32(0), None, layer([1.0], [1.0])) is None
    assert averaged_update(None, layer([1.0], [1.0]).params, {}) is None


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("rigl", "granet", "lottery_ticket", "lr_rewinding")]


@pytest.mark.parametrize("method", ["set", "top_kast", *SLOW])
def test_the_average_of_a_run_follows_its_weights(method):
    """Recomputed from the weights and masks of every step; RigL's updates, which take no step, leave it alone."""
    config = make_config(method, ema=0.75)
    fns, hyper, data = compiled(config), make_hyper(config), make_data()
    state = fns.init(hyper, data)
    average = jax.tree.map(np.asarray, state.params)
    equal(state.average.params, average)
    for step in range(1, 10):
        t = int(state.step)
        share = min(0.75, (1 + t) / (10 + t))
        state = fns.steps(state, hyper, data, jnp.int32(1))
        average = jax.tree.map(lambda a, w, s=share: s * a + (1 - s) * np.asarray(w), average, state.params)
        if step % 3 == 0:
            masks = state.topology.masks
            state = fns.update(state, hyper, data)
            average = after_update(method, average, masks, state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.average.params, average)


def after_update(method, average, masks, state):
    if method == "lottery_ticket":
        return jax.tree.map(np.asarray, state.params)
    new = select(state.params, NAMES)
    if method == "top_kast":  # whose connections all have values before they are used
        kept = {name: np.asarray(masks[name] & state.topology.masks[name]) for name in NAMES}
    else:
        kept = {name: np.asarray(new[name]) != 0 for name in NAMES}
    old = select(average, NAMES)
    kernels = {name.split("/")[0]: np.where(kept[name], old[name], new[name]) for name in NAMES}
    return {name: leaf | {"kernel": kernels[name]} for name, leaf in average.items()}


def test_what_is_evaluated_is_the_average():
    config, data = make_config("set", ema=0.9), make_data()
    fns, hyper = compiled(config), make_hyper(config)
    state, _ = fns.validate(fns.steps(fns.init(hyper, data), hyper, data, jnp.int32(4)), data)
    state, report = fns.validate(fns.steps(state, hyper, data, jnp.int32(4)), data)
    (loss, hits), (raw, _) = (evaluated(params, data, HELD_OUT) for params in (state.average.params, state.params))
    assert abs(loss - raw) > 0.01, "average and weights are alike: the test says nothing"
    np.testing.assert_allclose(report.validation.loss, loss, rtol=1e-5)
    assert report.validation.correct == hits
    equal(state.evaluated, state.average)
    if state.best.step == state.step:
        equal(state.best.params, state.average.params)
    assert (state.best.step > 0) == (state.best.correct >= 0)


def test_the_best_network_is_one_of_averages():
    config, data = make_config("static", ema=0.5), make_data()
    fns, hyper = compiled(config), make_hyper(config)
    state, best, most = fns.init(hyper, data), None, -1
    for _ in range(6):
        state, report = fns.validate(fns.steps(state, hyper, data, jnp.int32(4)), data)
        if report.validation.correct > most:
            best, most = state.average.params, int(report.validation.correct)
        equal(state.best.params, best)


def test_accset_goes_by_the_accuracy_of_the_average():
    """A network that its weights make right and its average wrong, or the other way round."""
    config, data = make_config("accset", ema=0.9), make_data()
    fns, hyper = compiled(config), make_hyper(config)
    state = fns.init(hyper, data)
    state = fns.steps(state, hyper, data, jnp.int32(20))
    zero = Average(jax.tree.map(jnp.zeros_like, state.params), {})
    accuracies = [float(fns.update(s, hyper, data).topology.accuracy) for s in (state, state._replace(average=zero))]
    expected = [evaluated(s.params, data, HELD_OUT)[1] / VALIDATION for s in (state.average, zero)]
    assert expected[0] != expected[1]
    np.testing.assert_allclose(accuracies, expected)


def test_training_does_not_look_at_the_average():
    plain, averaged = make_config("rigl"), make_config("rigl", ema=0.9)
    hyper, data, ends = make_hyper(plain), make_data(), []
    for config in (plain, averaged):
        fns = compiled(config)
        state = fns.init(hyper, data)
        for _ in range(3):
            state = fns.update(fns.steps(state, hyper, data, jnp.int32(3)), hyper, data)
        ends.append(state)
    equal(ends[0], ends[1]._replace(average=None, best=ends[0].best))
    average = ends[1].average.params
    equal(average, apply_masks(average, ends[1].topology.masks))


@pytest.mark.slow
def test_batch_statistics_are_averaged_with_the_weights():
    config = make_config("set", model="vgg11", ema=0.75)
    fns, hyper, data = compiled(config), make_hyper(config), make_data("vgg11")
    state = fns.init(hyper, data)
    average = jax.tree.map(np.asarray, state.model_state)
    for step in range(4):
        state = fns.steps(state, hyper, data, jnp.int32(1))
        share = min(0.75, (1 + step) / (10 + step))
        average = jax.tree.map(lambda a, now, s=share: s * a + (1 - s) * np.asarray(now), average, state.model_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.average.model_state, average)
    equal(fns.update(state, hyper, data).average.model_state, state.average.model_state)
    state, report = fns.validate(state._replace(best=state.best._replace(correct=jnp.int32(-1))), data)
    rows = jnp.int32(SIZES[0]), jnp.int32(SIZES[0] + VALIDATION)
    equal(report.validation, Tally(*fns.evaluate(*state.average, data, *rows)[:2]))
    equal(state.best.model_state, state.average.model_state)
