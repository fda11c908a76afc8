"""What trained networks can do without, on the functions of one network and on chunks of them: laws and oracles."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from sparse_jax.analysis import ablation
from sparse_jax.analysis.importance import ranks, shuffled
from sparse_jax.config import SHARED_WEIGHTS, AblationConfig, RunConfig
from sparse_jax.study.ablate import Experiment, examined
from sparse_jax.study.experiments import conduct, make_lay_out
from sparse_jax.study.resolve import settings_of
from sparse_jax.study.subjects import Subject, TrainedCohort
from sparse_jax.topology.birth import fan_scale
from sparse_jax.topology.masks import apply_masks, put, select
from sparse_jax.training import evaluation
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.parts import (
    ABLATION,
    AUGMENT,
    BIRTH,
    DROPOUT,
    FRESH,
    ORDER,
    PARAMS,
    TOPOLOGY,
    UPDATE,
    WALK,
    initial_variables,
    make_parts,
    predict,
    weights_key,
)
from sparse_jax.training.problem import make_problem
from sparse_jax.training.signals import loss_gradients, mean_inputs
from sparse_jax.training.train import make_train
from tests.tiny import CLASSES, MODELS, SIZES, DatasetInfo, make_config, make_data, make_hyper

TEST = sum(SIZES[:2]), sum(SIZES)
ROWS = tuple(jnp.int32(row) for row in TEST)
EXAMPLES = jnp.int32(20)
FRACTIONS = (0.0, 0.5, 1.0)
LARGE = ("lstm", "transformer", "resnet18", "efficientnet_b0")
SOME_MODELS = ("mlp", "lenet5", *(pytest.param(model, marks=pytest.mark.slow) for model in LARGE))


def make_subject(model="mlp", activation=None, seed=0, sparsity=0.6, **changes):
    """A network that was trained for six steps, as a study hands it over, with what its cohort has in common."""
    activation = activation or settings_of(RunConfig(model=model)).activation[0]
    config = make_config("set", activation, model, **changes)
    hyper, data = make_hyper(config, seed, sparsity), make_data(model)
    info = DatasetInfo("tiny", MODELS[model][0], CLASSES, sum(SIZES[:2]), SIZES[2])
    trained = make_train(config, make_problem(config, info, SIZES))
    state = jax.jit(trained.steps)(jax.jit(trained.init)(hyper, data), hyper, data, jnp.int32(6))
    config = examined(config)
    problem = make_problem(config, info, SIZES)
    masks = {name: np.asarray(state.topology.masks[name]) for name in problem.kernels}
    network = {"params": apply_masks(state.params, masks), "model_state": state.model_state}
    hyper = hyper._replace(start={}, counts={}, rates={}, masks=masks, network=jax.tree.map(np.asarray, network))
    cohort = TrainedCohort(config, problem, (), jax.device_get(data), SIZES)
    return Subject(None, hyper, False), cohort


def make_apparatus(cohort, lanes=1, layers=None):
    return ablation.make_ablation(cohort.config, cohort.problem, layers or tuple(cohort.problem.kernels), lanes)


def logits_of(cohort, subject, x):
    parts = make_parts(cohort.config, cohort.problem)
    network = subject.hyper.network
    return predict(parts, network["params"], network["model_state"], parts.normalize(cohort.data.normalization, x))


def make_chunk(subjects, cohort, fractions=FRACTIONS, layout="map", **changes):
    config = AblationConfig(fractions=fractions, **{"examples": 20} | changes)
    return make_lay_out(cohort, tuple(cohort.problem.kernels), Hardware(tuple(jax.devices()[:2]), layout, 4), config)(
        subjects
    )


def points_of(chunk, experiment):
    ((_, records),) = conduct(chunk, [experiment])
    return [record["points"] for record in records]


# --- laws -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", SOME_MODELS)
def test_nothing_removed_changes_nothing_and_all_removed_leaves_a_constant(model):
    subject, cohort = make_subject(model)
    chunk = make_chunk([subject], cohort)
    x, y = cohort.data.x[slice(*TEST)], cohort.data.y[slice(*TEST)]
    whole = float(np.mean(np.asarray(logits_of(cohort, subject, x)).argmax(-1) == y))
    connections = sum(int(mask.sum()) for mask in subject.hyper.masks.values())
    for order in ("smallest", "random", "gradient", "activity"):
        ((none, half, everything),) = points_of(chunk, Experiment("order", order, "layer", 0))
        assert none["accuracy"] == whole
        assert none["removed"] == 0
        assert everything["removed"] == connections
        assert everything["accuracy"] in {float(np.mean(y == one)) for one in range(CLASSES)}
        assert abs(half["removed"] - connections / 2) <= len(subject.hyper.masks)


def test_counts_are_exact_by_layer_and_in_all_layers():
    subject, cohort = make_subject()
    masks, fractions = subject.hyper.masks, tuple(i / 7 for i in range(8))
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    chunk = make_chunk([subject], cohort, fractions=fractions)
    for scope, expected in {
        "layer": [sum(int(q * n + 0.5) for n in counts.values()) for q in fractions],
        "global": [int(q * sum(counts.values()) + 0.5) for q in fractions],
    }.items():
        (points,) = points_of(chunk, Experiment("order", "smallest", scope, 0))
        assert [point["removed"] for point in points] == expected
    (points,) = points_of(chunk, Experiment("order", "decile", "layer", 0))
    assert sum(point["removed"] for point in points) == sum(counts.values())
    (positive,), (negative,) = (points_of(chunk, Experiment("order", s, "layer", 0)) for s in ("positive", "negative"))
    zeros = sum(int((mask & (subject.weights(name) == 0)).sum()) for name, mask in masks.items())
    assert positive[-1]["removed"] + negative[-1]["removed"] + zeros == sum(counts.values())


def test_what_is_removed_is_what_the_order_says():
    """Smallest first, half of every layer, against a NumPy network without these weights."""
    subject, cohort = make_subject()
    (points,) = points_of(make_chunk([subject], cohort), Experiment("order", "smallest", "layer", 0))
    kernels = {}
    for name, mask in subject.hyper.masks.items():
        weight = subject.weights(name)
        order = sorted(np.argwhere(mask).tolist(), key=lambda at, w=weight: abs(w[tuple(at)]))
        kernels[name] = weight.copy()
        for at in order[: int(mask.sum() / 2 + 0.5)]:
            kernels[name][tuple(at)] = 0
    x, y = np.asarray(cohort.data.x), cohort.data.y[slice(*TEST)]
    scale = cohort.data.normalization
    h = ((x - scale.shift) * scale.scale).reshape(len(x), -1)[slice(*TEST)]
    for i, name in enumerate(cohort.problem.kernels):
        h = h @ kernels[name] + subject.weights(name.replace("kernel", "bias"))
        h = np.maximum(h, 0) if i < 2 else h
    losses = np.log(np.exp(h).sum(-1)) - h[np.arange(len(y)), y]
    assert points[1]["accuracy"] == np.mean(h.argmax(-1) == y)
    assert points[1]["loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_leave_one_out_is_every_connection_left_out_once():
    subject, cohort = make_subject(sparsity=0.8)
    parts = make_apparatus(cohort, lanes=3)
    size = sum(mask.size for mask in subject.hyper.masks.values())
    mask = np.concatenate([mask.ravel() for mask in subject.hyper.masks.values()])
    places = np.append(np.flatnonzero(mask).astype(np.int32), size)  # the last is no connection
    found = jax.jit(lambda *args: ablation.leave_one_out(parts, *args))(subject.hyper, places, cohort.data, EXAMPLES)
    x, y = cohort.data.x[:20], cohort.data.y[:20]

    @jax.jit
    def loss(params):
        one = subject._replace(hyper=subject.hyper._replace(network=subject.hyper.network | {"params": params}))
        return optax.softmax_cross_entropy_with_integer_labels(logits_of(cohort, one, x), y).mean()

    whole, expected = loss(subject.hyper.network["params"]), []
    for name, of_layer in subject.hyper.masks.items():
        for at in np.argwhere(of_layer):
            params = jax.tree.map(np.copy, subject.hyper.network["params"])
            params[name.removesuffix("/kernel")]["kernel"][tuple(at)] = 0
            expected.append(float(loss(params) - whole))
    np.testing.assert_allclose(found[:-1], expected, atol=2e-6)
    assert found[-1] == 0
    assert np.ptp(expected) > 1e-3


@pytest.mark.parametrize("model", SOME_MODELS)
def test_gradients_are_those_of_the_mean_loss(model, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 7)
    subject, cohort = make_subject(model)
    parts, params = make_parts(cohort.config, cohort.problem), subject.hyper.network["params"]
    found = jax.jit(lambda *args: loss_gradients(parts, *args))(
        params, subject.hyper.network["model_state"], cohort.data, EXAMPLES
    )
    x, y = cohort.data.x[:20], cohort.data.y[:20]

    def loss(params):
        one = subject._replace(hyper=subject.hyper._replace(network=subject.hyper.network | {"params": params}))
        return optax.softmax_cross_entropy_with_integer_labels(logits_of(cohort, one, x), y).mean()

    for name, expected in select(jax.jit(jax.grad(loss))(params), cohort.problem.kernels).items():
        largest = np.abs(expected).max()  # 1e-9 in some layers, 20 in others
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=2e-5 * largest, err_msg=name)


def test_mean_inputs_by_hand(monkeypatch):
    """Of every layer of an MLP, of the taps of a convolution, and over the steps of a recurrent layer."""
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 7)
    subject, cohort = make_subject()
    parts = make_parts(cohort.config, cohort.problem)
    params, scale = subject.hyper.network["params"], cohort.data.normalization
    found = mean_inputs(parts, params, {}, cohort.data, EXAMPLES)
    h = ((np.asarray(cohort.data.x[:20]) - scale.shift) * scale.scale).reshape(20, -1)
    for name in ("dense_0", "dense_1", "output"):
        np.testing.assert_allclose(found[f"{name}/kernel"][:, 0], np.abs(h).mean(0), rtol=1e-5)
        h = np.maximum(h @ params[name]["kernel"] + params[name]["bias"], 0)
    for model, name in (("lenet5", "conv_0/kernel"), ("lstm", "lstm_0/input_i/kernel")):
        subject, cohort = make_subject(model)
        found = mean_inputs(
            make_parts(cohort.config, cohort.problem), subject.hyper.network["params"], {}, cohort.data, EXAMPLES
        )
        scale = cohort.data.normalization
        x = (np.asarray(cohort.data.x[:20]) - scale.shift) * scale.scale  # [examples, steps or height, ..., inputs]
        expected = np.abs(x).mean(tuple(range(x.ndim - 1)))
        np.testing.assert_allclose(found[name][:, 0], expected, rtol=1e-5)
        assert found.keys() == cohort.problem.kernels.keys()


# --- shared weights -------------------------------------------------------------------------------------


def test_a_positive_shared_weight_does_not_matter_to_a_network_of_relu():
    subject, cohort = make_subject(activation="relu", seed=1, sparsity=0.3)
    few = {name: np.random.default_rng(3).random(mask.shape) < 0.2 for name, mask in subject.hyper.masks.items()}
    subject = subject._replace(hyper=subject.hyper._replace(masks=few))
    parts, x = make_parts(cohort.config, cohort.problem), cohort.data.x[slice(*TEST)]
    params = subject.hyper.network["params"]
    inputs = parts.normalize(cohort.data.normalization, x)
    by_weight = {}
    for w in (0.5, 1.0, 2.0, -1.0):
        of_one = ablation.shared_params(params, subject.hyper.masks, jnp.float32(w))
        by_weight[w] = np.argmax(predict(parts, of_one, {}, inputs), -1)
    assert (by_weight[0.5] == by_weight[1.0]).all()
    assert (by_weight[1.0] == by_weight[2.0]).all()
    assert len(set(by_weight[1.0].tolist())) > 1
    (points,) = points_of(make_chunk([subject], cohort), Experiment("shared_weight", "shared_weight", None, 0))
    found = {point["weight"]: point["accuracy"] for point in points}
    y = cohort.data.y[slice(*TEST)]
    assert found[0.5] == found[1.0] == found[2.0] == np.mean(by_weight[1.0] == y)
    assert found[-1.0] == np.mean(by_weight[-1.0] == y)


@pytest.mark.parametrize("activation", ["tanh", "sin_pi"])
def test_the_vote_of_all_shared_weights(activation):
    subject, cohort = make_subject(activation=activation)
    ((_, (record,)),) = conduct(make_chunk([subject], cohort), [Experiment("shared_weight", "shared_weight", None, 0)])
    parts, (x, y) = make_parts(cohort.config, cohort.problem), (a[slice(*TEST)] for a in cohort.data[:2])
    inputs = parts.normalize(cohort.data.normalization, x)
    kernels = {name.removesuffix("/kernel"): mask for name, mask in subject.hyper.masks.items()}
    each = []
    for w in SHARED_WEIGHTS:
        params = {name: {"kernel": np.float32(w) * mask, "bias": np.zeros(mask.shape[1], np.float32)}
                  for name, mask in kernels.items()}  # fmt: skip
        each.append(np.asarray(predict(parts, params, {}, inputs)))
    votes = [Counter(classes) for classes in zip(*(one.argmax(-1).tolist() for one in each), strict=True)]
    ensemble = [min(one for one in of if of[one] == max(of.values())) for of in votes]  # of equal votes the lower class
    assert record["vote_accuracy"] == np.mean(np.array(ensemble) == y)
    assert [point["accuracy"] for point in record["points"]] == [np.mean(one.argmax(-1) == y) for one in each]
    losses = [optax.softmax_cross_entropy_with_integer_labels(one, y).mean() for one in each]
    np.testing.assert_allclose([point["loss"] for point in record["points"]], losses, rtol=1e-5)


# --- edits and retraining -------------------------------------------------------------------------------


def test_edits_keep_what_they_say(monkeypatch):
    subject, cohort = make_subject()
    monkeypatch.setattr(ablation, "_outcome", lambda parts, hyper, *rest: hyper.network["params"])
    names = ("unchanged", "magnitudes_shuffled", "signs_shuffled", "weights_shuffled", "reinitialised")
    mask = np.concatenate([mask.ravel() for mask in subject.hyper.masks.values()])
    sizes = [mask.size for mask in subject.hyper.masks.values()]
    bits = np.random.default_rng(0).integers(0, 2**32, mask.size, np.uint32)
    source, edited = shuffled(ranks("layer", bits, mask, sizes), mask, sizes), ablation.edited
    of_run = subject.hyper, source, jnp.bool_(False)
    found = edited(make_apparatus(cohort), names, *of_run, cohort.data, ROWS, None)
    parts = make_parts(cohort.config, cohort.problem)
    own, _ = initial_variables(parts, weights_key(cohort.config, subject.hyper), cohort.data, {})
    scaled = edited(make_apparatus(cohort), names, *of_run[:2], jnp.bool_(True), cohort.data, ROWS, None)
    moved = 0
    for name, of_layer in subject.hyper.masks.items():
        kernels, weight = found[name.removesuffix("/kernel")]["kernel"], subject.weights(name)[of_layer]
        of = {edit: np.asarray(kernels[i])[of_layer] for i, edit in enumerate(names)}
        assert (of["unchanged"] == weight).all()
        assert sorted(of["weights_shuffled"]) == sorted(weight)
        assert sorted(abs(of["magnitudes_shuffled"])) == sorted(abs(weight))
        assert ((of["magnitudes_shuffled"] < 0) == (weight < 0))[weight != 0].all()
        assert (abs(of["signs_shuffled"]) == abs(weight)).all()
        assert (of["signs_shuffled"] < 0).sum() == (weight < 0).sum()
        fresh, layer = of["reinitialised"], name.removesuffix("/kernel")
        assert not set(fresh) & set(weight)
        assert not set(fresh) & set(np.asarray(own[layer]["kernel"])[of_layer])
        scale = np.asarray(fan_scale(jnp.asarray(of_layer), True))[of_layer]
        np.testing.assert_allclose(np.asarray(scaled[layer]["kernel"][4])[of_layer], scale * fresh, rtol=1e-5)
        moved += (of["weights_shuffled"] != weight).sum()
    assert moved > 10


def test_retraining_is_training_with_the_masks_that_are_left():
    subject, cohort = make_subject()
    chunk = make_chunk([subject], cohort, fractions=(0.5,))
    (cut,) = points_of(chunk, Experiment("order", "smallest", "layer", 0))[0]
    (again,) = points_of(chunk, Experiment("order", "smallest", "layer", 5))[0]
    assert again["loss"] != cut["loss"]
    assert again["removed"] == cut["removed"]
    hyper, masks = subject.hyper, {}
    for name, mask in hyper.masks.items():
        bits = np.where(mask, np.abs(subject.weights(name)), 0).ravel().view(np.uint32)
        left = ranks("layer", bits, mask.ravel(), [mask.size]).reshape(mask.shape) >= int(mask.sum() / 2 + 0.5)
        masks[name] = mask & left
    fns = make_train(cohort.config, cohort.problem)
    counts = {name: np.int32(mask.sum()) for name, mask in masks.items()}
    given = hyper._replace(masks=masks, start=counts, counts=counts)
    data = jax.device_put(cohort.data)
    state = fns.steps(fns.init(given, data), given, data, jnp.int32(5))
    assert all((np.asarray(kernel)[~masks[name]] == 0).all() for name, kernel in select(state.params, masks).items())
    expected = fns.evaluate(*state.evaluated, data, *ROWS)
    assert again["loss"] == pytest.approx(float(expected.loss), rel=1e-5)


def test_edits_are_retrained_as_orders_are():
    subject, cohort = make_subject()
    chunk = make_chunk([subject], cohort)
    found = {one.steps: records[0]["points"][0]["loss"] for one, records in
             conduct(chunk, [Experiment("edit", "unchanged", None, steps) for steps in (0, 5)])}  # fmt: skip
    expected = [points_of(chunk, Experiment("order", "smallest", "layer", steps))[0][0]["loss"] for steps in (0, 5)]
    assert [found[0], found[5]] == pytest.approx(expected, rel=1e-5)
    assert found[0] != found[5]


def test_training_that_diverged_has_no_accuracy():
    subject, cohort = make_subject()
    wild = subject._replace(hyper=subject.hyper._replace(learning_rate=np.float32(1e30)))
    (points,) = points_of(make_chunk([wild], cohort), Experiment("order", "smallest", "layer", 5))
    assert (points[0]["accuracy"], points[0]["loss"]) == (None, None)
    assert points[-1]["removed"] > 0


def test_the_one_connection_that_goes_is_the_one_worth_least_and_correlations_are_by_layer():
    subject, cohort = make_subject(sparsity=0.8)
    masks = subject.hyper.masks
    count = sum(int(mask.sum()) for mask in masks.values())
    chunk = make_chunk([subject], cohort, fractions=(1 / count,), examples=20)
    ((_, (record,)),) = conduct(chunk, [Experiment("order", "leave_one_out", "global", 0)])
    mask, sizes = np.concatenate([m.ravel() for m in masks.values()]), [m.size for m in masks.values()]
    weight = np.concatenate([subject.weights(name).ravel() for name in masks])
    exact = {}
    for examples in (5, 20):
        of = jax.jit(lambda *args: ablation.leave_one_out(make_apparatus(cohort), *args))
        exact[examples] = np.asarray(
            of(subject.hyper, np.flatnonzero(mask).astype(np.int32), cohort.data, jnp.int32(examples))
        )
    least = np.flatnonzero(mask)[exact[20].argmin()]
    kernels, ends = {}, np.cumsum([0, *sizes])
    for i, name in enumerate(masks):
        part = weight[ends[i] : ends[i + 1]].copy()
        part[[least - ends[i]] if ends[i] <= least < ends[i + 1] else []] = 0
        kernels[name] = part.reshape(masks[name].shape)
    network = subject.hyper.network | {"params": put(subject.hyper.network["params"], kernels)}
    left = subject._replace(hyper=subject.hyper._replace(network=network))
    x, y = cohort.data.x[slice(*TEST)], cohort.data.y[slice(*TEST)]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits_of(cohort, left, x), y).mean()
    assert record["points"][0]["removed"] == 1
    assert record["points"][0]["loss"] == pytest.approx(float(loss), rel=1e-5)
    layer = np.repeat(np.arange(len(sizes)), sizes)[mask]
    for i, name in enumerate(masks):
        expected = stats.spearmanr(np.abs(weight[mask][layer == i]), exact[20][layer == i]).statistic
        assert record["correlations"][name]["smallest"] == pytest.approx(expected, abs=0.02)
    few = make_chunk([subject], cohort, fractions=(1 / count,), examples=5)
    ((_, (other,)),) = conduct(few, [Experiment("order", "leave_one_out", "global", 0)])
    assert other["correlations"] != record["correlations"]


def test_seeds_and_purposes_have_keys_of_their_own():
    parts, drawn = None, []
    for seed in range(2):
        subject, cohort = make_subject(seed=seed)
        parts = make_apparatus(cohort)
        empty = jnp.zeros(0, jnp.int32), jnp.zeros(0)
        orders = ablation.scored(parts, ("random", "positive"), subject.hyper, empty, cohort.data, EXAMPLES)
        drawn += [order.bits.tolist() for order in orders.values()]
        drawn.append(ablation.at_random(parts, subject.hyper, cohort.data).bits.tolist())
    assert all(one != other for i, one in enumerate(drawn) for other in drawn[:i])
    assert ABLATION not in (PARAMS, TOPOLOGY, ORDER, DROPOUT, UPDATE, WALK, BIRTH, AUGMENT, FRESH)


# --- many networks at once ------------------------------------------------------------------------------


def test_eight_networks_six_orders_and_eleven_fractions_are_one_program(monkeypatch):
    subjects, cohort = zip(*(make_subject(seed=seed, sparsity=0.5 + seed / 20) for seed in range(8)), strict=True)
    traces, curve = [], ablation.curve

    def counted(*args):
        traces.append(args)
        return curve(*args)

    counted.__name__ = "curve"
    monkeypatch.setattr(ablation, "curve", counted)
    chunk = make_chunk(subjects, cohort[0], fractions=tuple(tenths / 10 for tenths in range(11)))
    orders = ("smallest", "largest", "random", "positive", "gradient", "activity")
    found = list(conduct(chunk, [Experiment("order", order, "layer", 0) for order in orders]))
    assert len(traces) == 1
    assert [len(record["points"]) for _, records in found for record in records] == [11] * 48


@pytest.mark.parametrize(("layout", "lanes"), [("map", 1), ("map", 4), ("vmap", 1), ("vmap", 4)])
def test_a_network_among_others_is_the_network_alone(layout, lanes):
    subjects, cohorts = zip(*(make_subject(seed=seed) for seed in range(3)), strict=True)
    experiments = [Experiment("order", "random", "layer", 0), Experiment("edit", "signs_shuffled", None, 0)]
    alone = make_chunk(subjects[1:2], cohorts[0])
    expected = [records[0]["points"] for _, records in conduct(alone, experiments)]
    together = make_chunk(subjects, cohorts[0], layout=layout)
    together = together._replace(parts=together.parts._replace(lanes=lanes))
    found = [records[1]["points"] for _, records in conduct(together, experiments)]
    for some, others in zip(found, expected, strict=True):
        for one, other in zip(some, others, strict=True):
            assert one["accuracy"] == other["accuracy"]
            assert one.get("removed") == other.get("removed")
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_networks_of_all_methods_and_sparsities_are_examined_alike():
    base = make_config("set", "relu")
    others = [make_config("rigl", "relu", ema=0.5), make_config("dense", "relu"), dataclasses.replace(base, seed=5)]
    assert {examined(config) for config in (base, *others)} == {examined(base)}
    assert examined(make_config("set", "tanh")) != examined(base)
