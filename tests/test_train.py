"""The training of one run: evaluation, the best network, the course of an update, what it may look at."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.config import RunConfig
from sparse_jax.data.arrays import DatasetInfo
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data, batch_indices
from sparse_jax.data.normalization import fit
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.study.grid import Run
from sparse_jax.study.group import hyper_params
from sparse_jax.study.resolve import connections_of, settings_of
from sparse_jax.study.sources import Lent
from sparse_jax.topology.masks import name_of, select
from sparse_jax.topology.paths import connectivity
from sparse_jax.training import evaluation, scores
from sparse_jax.training.checkpoint import Checkpoints
from sparse_jax.training.cohort import make_cohort, make_mesh, replicate, stack
from sparse_jax.training.gradients import training_loss
from sparse_jax.training.parts import ORDER
from sparse_jax.training.problem import make_problem
from sparse_jax.training.timeline import evaluation_due, stop_step, update_due
from sparse_jax.training.train import make_train
from tests.test_laws import compiled, equal
from tests.tiny import SIZES, make_config, make_data, make_hyper, make_tiny_problem

TRAIN, VALIDATION, TEST = SIZES


def forward(params, x):
    """The ReLU network of `tests.tiny` in NumPy, float64."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    for layer in ("dense_0", "dense_1"):
        x = np.maximum(x @ np.float64(params[layer]["kernel"]) + np.float64(params[layer]["bias"]), 0)
    return x @ np.float64(params["output"]["kernel"]) + np.float64(params["output"]["bias"])


def evaluated(params, data, rows):
    """(mean cross entropy, hits) of the rows in NumPy."""
    x = (np.asarray(data.x) - data.normalization.shift) * data.normalization.scale
    logits, y = forward(params, x)[rows], np.asarray(data.y)[rows]
    log_sum = np.log(np.exp(logits).sum(-1))
    return np.mean(log_sum - logits[np.arange(len(y)), y]), int((logits.argmax(-1) == y).sum())


def trained(config, epochs, hyper=None):
    """The states after each epoch, each validated, with the reports."""
    fns, data, hyper = compiled(config), make_data(), hyper or make_hyper(config)
    state, history = fns.init(hyper, data), []
    for _ in range(epochs):
        state = fns.steps(state, hyper, data, jnp.int32(4))
        state, report = fns.validate(state, data)
        history.append((state, report))
    return history


@pytest.mark.parametrize("batch", [1000, 5, 7])
def test_evaluation_equals_numpy_whatever_the_batch(batch, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
    config, data = make_config("set"), make_data()
    fns = make_train(config, make_tiny_problem(config))
    state = compiled(config).init(make_hyper(config), data)
    for start, stop in ((0, 32), (32, 40), (40, 52), (3, 4), (51, 52)):
        loss, hits = evaluated(state.params, data, slice(start, stop))
        ours = jax.jit(fns.evaluate)(state.params, state.model_state, data, jnp.int32(start), jnp.int32(stop))
        np.testing.assert_allclose(ours.loss, loss, rtol=1e-5)
        assert ours.correct == hits


def test_the_best_network_is_that_of_the_first_highest_validation_accuracy():
    config = make_config("static", learning_rate=0.3)
    history = trained(config, 8, make_hyper(config, learning_rate=np.float32(0.6)))
    hits = [int(report.validation.correct) for _, report in history]
    assert hits.index(max(hits)) < len(hits) - 1, "the last is the best: the test says nothing"
    assert min(hits) < max(hits)
    for seen in range(1, len(history) + 1):
        first = hits.index(max(hits[:seen]))
        best = history[seen - 1][0].best
        assert (int(best.correct), int(best.step)) == (hits[first], 4 * (first + 1))
        equal(best.params, history[first][0].params)


@pytest.mark.parametrize("method", ["gmp", "granet", "ac_dc", "mest_soft", "lottery_ticket"])
def test_the_best_network_has_the_connections_asked_for(method):
    config = make_config(method, **({} if method == "lottery_ticket" else {"interval": 7}))
    problem, hyper, data, fns = make_tiny_problem(config), make_hyper(config), make_data(), compiled(config)
    state, passed_over = fns.init(hyper, data), 0
    for step in range(problem.steps):
        if evaluation_due(problem, step):
            state, _ = fns.validate(state, data)
            passed_over += int(state.best.correct) < 0
        if update_due(config, problem, step):
            state = fns.update(state, hyper, data)
        state = fns.steps(state, hyper, data, jnp.int32(1))
    state, _ = fns.validate(state, data)
    assert passed_over, "it is pruned before the first evaluation: the test says nothing"
    assert state.best.correct >= 0
    for name, weight in select(state.best.params, problem.masked).items():
        assert (np.asarray(weight) != 0).sum() <= hyper.counts[name]


def test_a_report_covers_what_was_trained_since_the_last_one():
    config = make_config("static")
    history = trained(config, 3)
    data, hyper = make_data(), make_hyper(config)
    state = compiled(config).init(hyper, data)
    for _, report in history:
        losses, hits = [], 0
        for _ in range(4):
            rows = batch_indices(jax.random.fold_in(state.key, ORDER), state.step, TRAIN, 8)
            loss, correct = evaluated(state.params, data, np.asarray(rows))
            losses, hits = [*losses, loss], hits + correct
            state = compiled(config).steps(state, hyper, data, jnp.int32(1))
        np.testing.assert_allclose(report.train.loss, np.mean(losses), rtol=1e-5)
        assert (int(report.train.correct), int(report.train_examples)) == (hits, TRAIN)
    _, nothing = compiled(config).validate(history[-1][0], data)
    assert math.isnan(nothing.train.loss)
    assert nothing.train_examples == 0


def all_masks(state):
    """The masks of 12-14-10-3 in order, with ones where a layer has none."""
    shapes = {"dense_0/kernel": (12, 14), "dense_1/kernel": (14, 10), "output/kernel": (10, 3)}
    return [np.asarray(state.topology.masks.get(name, np.ones(shape, bool))) for name, shape in shapes.items()]


@pytest.mark.parametrize("dense_layers", ["", "dense_1", "dense_0|output"])
def test_a_report_measures_what_is_cut_off(dense_layers):
    config = make_config("set", dense_layers=dense_layers)
    fns, hyper, data = compiled(config), make_hyper(config, sparsity=0.9), make_data()
    state, found = fns.init(hyper, data), []
    for _ in range(3):
        state = fns.update(fns.steps(state, hyper, data, jnp.int32(3)), hyper, data)
        _, report = fns.validate(state, data)
        assert report.connectivity == connectivity(all_masks(state))
        found.append(tuple(map(int, report.connectivity)))
    assert len(set(found)) > 1, "the masks do not change: the test says nothing"
    assert all(dead and effective for dead, effective, _ in found)


def test_a_report_tells_layer_collapse():
    config, data = make_config("static"), make_data()
    fns, hyper = compiled(config), make_hyper(config)
    state = fns.init(hyper, data)
    masks = state.topology.masks | {"dense_1/kernel": jnp.zeros((14, 10), bool)}
    _, report = fns.validate(state._replace(topology=state.topology._replace(masks=masks)), data)
    assert report.connectivity == (24, 0, 1)


def test_nothing_is_cut_off_in_a_dense_network():
    config, data = make_config("dense", sparsity=None), make_data()
    fns, hyper = compiled(config), make_hyper(config)
    _, report = fns.validate(fns.init(hyper, data), data)
    assert report.connectivity == (0, 12 * 14 + 14 * 10 + 10 * 3, 0)


def test_what_is_cut_off_is_unknown_where_layers_are_not_in_series(monkeypatch):
    assert OUTLINES["mlp"].in_series
    monkeypatch.setitem(evaluation.OUTLINES, "mlp", OUTLINES["mlp"]._replace(in_series=False))
    config, data = make_config("static"), make_data()
    state = compiled(config).init(make_hyper(config), data)
    _, report = jax.jit(make_train(config, make_tiny_problem(config)).validate)(state, data)
    assert report.connectivity is None


def test_smoothed_labels_by_hand():
    """p = (1/2, 1/4, 1/4), the label 0 and α = 0.3: the labels are (0.8, 0.1, 0.1), so 0.8 log 2 + 0.2 log 4; with
    p = (1/4, 1/4, 1/2) it is 0.9 log 4 + 0.1 log 2."""
    logits, y = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])), jnp.array([0, 2])
    np.testing.assert_allclose(training_loss(0.3, logits, y), 1.2 * math.log(2), rtol=1e-6)
    np.testing.assert_allclose(training_loss(0.3, logits, jnp.array([0, 0])), (1.2 + 1.9) / 2 * math.log(2), rtol=1e-6)
    np.testing.assert_allclose(training_loss(0.0, logits, y), math.log(2), rtol=1e-6)


def test_labels_are_smoothed_in_training_only():
    plain, smoothed = make_config("static"), make_config("static", label_smoothing=0.4)
    hyper, data = make_hyper(plain), make_data()
    state = compiled(plain).init(hyper, data)
    equal(state, compiled(smoothed).init(hyper, data))
    rows = jnp.int32(0), jnp.int32(TRAIN)
    equal(*(compiled(config).evaluate(state.params, {}, data, *rows) for config in (plain, smoothed)))
    equal(*(compiled(config).validate(state, data) for config in (plain, smoothed)))
    rows = np.asarray(batch_indices(jax.random.fold_in(state.key, ORDER), state.step, TRAIN, 8))
    by_label = [np.mean([evaluated(state.params, data._replace(y=jnp.full(52, k)), [i])[0] for i in rows])
                for k in range(3)]  # fmt: skip
    after = compiled(smoothed).steps(state, hyper, data, jnp.int32(1))
    plain_loss = evaluated(state.params, data, rows)[0]
    np.testing.assert_allclose(after.running.loss, 0.6 * plain_loss + 0.4 * np.mean(by_label), rtol=1e-5)


@pytest.mark.parametrize("method", ["set", "rigl", "granet"])
def test_training_does_not_look_at_validation_or_test(method):
    config = make_config(method)
    data, hyper = make_data(), make_hyper(config)
    poisoned = data._replace(x=data.x.at[TRAIN:].set(1e9), y=data.y.at[TRAIN:].set(0))
    fns = compiled(config)
    ends = []
    for source in (data, poisoned):
        state = fns.init(hyper, source)
        for _ in range(3):
            state = fns.update(fns.steps(state, hyper, source, jnp.int32(3)), hyper, source)
        ends.append(state)
    equal(*ends)


@pytest.mark.parametrize(("method", "schedule"), [("rigl", "cosine"), ("set", "constant"), ("set", "linear")])
def test_an_update_moves_the_scheduled_share(method, schedule):
    """Of 40 steps the stop is at 24: f(t) = ζ/2 (1 + cos πt/24), ζ, or ζ (1 − t/24)."""
    config = make_config(method, interval=6, stop_fraction=0.6, drop_schedule=schedule)
    assert stop_step(config, make_tiny_problem(config)) == 24
    fns, hyper, data = compiled(config), make_hyper(config, sparsity=0.7), make_data()
    state = fns.init(hyper, data)
    while state.step < 24:
        state = fns.steps(state, hyper, data, 6 - state.step % 6)
        course = {
            "cosine": (1 + math.cos(math.pi * int(state.step) / 24)) / 2,
            "constant": 1,
            "linear": 1 - int(state.step) / 24,
        }[schedule]
        expected = 0
        for name, mask in state.topology.masks.items():
            layer = name.split("/")[0]
            weight, mask = np.asarray(state.params[layer]["kernel"]), np.asarray(mask)
            groups = [mask & ~(weight < 0), mask & (weight < 0)] if method == "set" else [mask]
            expected += sum(math.floor(np.float32(0.3 * course) * np.float32(group.sum())) for group in groups)
        before = int(state.running.moved)
        state = fns.update(state, hyper, data)
        assert int(state.running.moved) - before == expected


def test_the_learning_rate_follows_the_steps_of_the_run_not_of_the_optimizer():
    """With sgd and a zero loss gradient nothing but the decay moves a weight: w ← w (1 − lr(t) λ)."""
    config = make_config("rigl", optimizer="sgd", lr_schedule="cosine", interval=2)
    fns, data = compiled(config), make_data()
    hyper = make_hyper(config, drop_fraction=0.0)
    state = fns.init(hyper, data)
    for _ in range(5):
        state = fns.update(fns.steps(state, hyper, data, jnp.int32(1)), hyper, data)
    assert state.step == 10
    after = fns.steps(state, hyper, data, jnp.int32(1))
    plain = dataclasses.replace(config, lr_schedule="constant")
    rate = np.float32(0.1 * (1 + math.cos(math.pi * 10 / 40)) / 2)
    same = compiled(plain).steps(state, hyper._replace(learning_rate=rate), data, jnp.int32(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), after.params, same.params)


def test_relu_logits_are_what_the_loss_and_the_evaluation_see():
    config, data = make_config("static"), make_data()
    hyper, rows = make_hyper(config), slice(TRAIN, TRAIN + VALIDATION)
    state = compiled(config).init(hyper, data)
    through = dataclasses.replace(config, relu_logits=True)
    logits = forward(state.params, (np.asarray(data.x) - data.normalization.shift) * data.normalization.scale)[rows]
    y, cut = np.asarray(data.y)[rows], np.maximum(logits, 0)
    expected = np.mean(np.log(np.exp(cut).sum(-1)) - cut[np.arange(len(y)), y])
    ours = compiled(through).evaluate(state.params, {}, data, jnp.int32(TRAIN), jnp.int32(TRAIN + VALIDATION))
    np.testing.assert_allclose(ours.loss, expected, rtol=1e-5)
    dead = jax.tree.map(lambda leaf: leaf, state.params)
    dead["output"]["bias"] = jnp.full(3, -1e3)  # no output is ever positive: nothing learns any more
    stuck = compiled(through).steps(state._replace(params=dead), hyper._replace(weight_decay=0.0), data, jnp.int32(2))
    equal(stuck.params, dead)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet18", "vgg16"])
def test_a_convolutional_network_is_saved_and_continued_with_its_batch_statistics(model, tmp_path):
    config = make_config("set", model=model)
    fns, data, hyper = compiled(config), make_data(model), make_hyper(config)
    first = fns.init(hyper, data)
    kernels = {name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(first.params)}
    assert set(first.topology.masks) == {name for name in kernels if name.endswith("kernel")}

    def advance(state):
        return fns.update(fns.steps(state, hyper, data, jnp.int32(3)), hyper, data)

    half = advance(first)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(3, half, {})
        step, restored, _ = checkpoints.restore(jax.eval_shape(fns.init, hyper, data))
    assert step == 3
    equal(restored, half)
    equal(advance(restored), advance(half))
    for statistics, before in zip(jax.tree.leaves(half.model_state), jax.tree.leaves(first.model_state), strict=True):
        assert (statistics != before).any()


@pytest.mark.slow
def test_every_run_of_a_cohort_has_batch_statistics_of_its_own():
    config = make_config("set", model="vgg11")
    mesh = make_mesh(jax.devices()[:1])
    hypers = [make_hyper(config, seed) for seed in (0, 1)]
    fns = make_cohort(make_train(config, make_tiny_problem(config)), "map", mesh)
    hyper, data = stack(hypers, 2, mesh), replicate(make_data("vgg11"), mesh)
    state = fns.steps(fns.init(hyper, data), hyper, data, jnp.int32(2))
    run, own = compiled(config), make_data("vgg11")
    alone = run.steps(run.init(hypers[1], own), hypers[1], own, 2)
    for together, single in zip(jax.tree.leaves(state.model_state), jax.tree.leaves(alone.model_state), strict=True):
        assert (together[0] != together[1]).any()
        np.testing.assert_allclose(together[1], single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("first", ["snip", "grasp", "synflow"])
def test_first_masks_do_not_depend_on_the_precision_of_training(first):
    masks = []
    for dtype in ("float32", "bfloat16"):
        config = make_config("static", initial_topology=first, dtype=dtype)
        state = jax.jit(make_train(config, make_tiny_problem(config)).init)(make_hyper(config), make_data())
        masks.append(state.topology.masks)
    equal(*masks)


@pytest.mark.slow
def test_synflow_ranks_what_lies_beside_shortcuts_however_deep(monkeypatch):
    """The flow through WRN-40-2 is some 10⁴⁰: without the level of its input and output no score is finite."""
    monkeypatch.setattr(scores, "SYNFLOW_ROUNDS", 2)
    info = DatasetInfo("images", (8, 8, 3), 10, 40, 12)
    config = settings_of(
        RunConfig(
            model="wide_resnet", depth=40, method="static", sparsity=0.95, initial_topology="synflow",
            allocation="global", batch_size=8,
        )
    )  # fmt: skip
    problem = make_problem(config, info, SIZES)
    connections = connections_of(config, problem, Lent())
    x = np.random.default_rng(0).normal(size=(sum(SIZES), 8, 8, 3)).astype(np.float32)
    y = np.arange(len(x), dtype=np.int32) % 10
    data = jax.device_put(Data(x, y, fit("global_zscore", x), levels_of(x)))
    hyper = hyper_params(Run("run", config, problem, *connections, Lent()))
    state = jax.jit(make_train(config, problem).init)(hyper, data)
    counts = {name: int(mask.sum()) for name, mask in state.topology.masks.items()}
    assert sum(counts.values()) == sum(connections.start.values())
    assert min(count for name, count in counts.items() if "shortcut" not in name) > 0  # these have no way around
