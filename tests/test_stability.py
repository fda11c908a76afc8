"""Detectors of unstable training: what they say, what a network tells them, and what a study writes."""

import csv
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.activations.responses import responses_of
from sparse_jax.analysis.stability import SPIKE, dead_classes, loss_spikes, silent_neurons
from sparse_jax.data.catalog import make_reader
from sparse_jax.study.evaluate import read_own
from sparse_jax.study.finished import find
from sparse_jax.study.trained import FINAL, load, matrix
from sparse_jax.training import evaluation
from sparse_jax.training import feed as feeds
from sparse_jax.training.cohort import make_cohort, make_mesh, replicate
from sparse_jax.training.feed import Resident, score_part
from sparse_jax.training.parts import make_parts
from sparse_jax.training.train import make_train
from tests.program import run
from tests.test_feed import streamed
from tests.test_laws import compiled, equal, on_host
from tests.tiny import MODELS, SIZES, make_config, make_data, make_hyper, make_tiny_problem

ENDS = np.cumsum([0, *SIZES], dtype=np.int32)
MARGIN = SPIKE * math.log(10)  # 0.2303 of ten classes


# --- what detectors say ----------------------------------------------------------------------------


def test_a_class_is_dead_if_it_has_examples_and_is_never_named():
    assert dead_classes(np.array([5, 0, 2, 1, 3]), np.array([11, 0, 0, 0, 1])) == [2, 3]
    assert dead_classes(np.array([1, 1]), np.array([1, 1])) == []


def test_a_neuron_is_silent_if_all_examples_are_one_to_it():
    low, high = np.array([0, 0, 1, -2, 0.3]), np.array([0, 4, 1, -1, 0.3 + 2e-8])
    assert silent_neurons(low, high) == 3  # but for the second and the fourth
    assert silent_neurons(low[1:4], high[1:4]) == 1
    assert silent_neurons(np.zeros(3), np.zeros(3)) == 3
    assert silent_neurons(np.array([1e-12, 0]), np.array([3e-12, 2e-12])) == 0  # all is as small
    assert silent_neurons(np.array([1e-12, 0]), np.array([3e-12, 1])) == 1  # nothing beside the other


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_of_a_network_that_diverged_nothing_is_known(value):
    for low, high in (([0, value], [0, value]), ([0, 0], [0, value]), ([0, value], [0, 0])):
        assert silent_neurons(np.array(low), np.array(high)) is None


@pytest.mark.parametrize(
    ("losses", "spikes"),
    [
        ([], 0), ([2.3], 0), ([2.3, 1, 0.5, 0.4], 0),
        ([1, 1.2, 1, 1.22], 0),  # not by 0.23
        ([1, 1.24, 1], 1),
        ([1, 1.1, 1.2, 1.24], 1),  # slowly, but above the lowest
        ([1, 2, 3, 2, 1.5], 1),  # one, from which it does not come back
        ([1, 2, 1.1, 2, 1, 9], 3),
        ([2, 1, 1.5, 0.9, 1.2], 2),
        ([9, 1.3, 1.2], 0),  # a high start is none
        ([1, None, 1.1, math.nan, math.inf], 0),  # divergence
        ([None, 1, 2, None, 2], 1),
    ],
)  # fmt: skip
def test_a_spike_is_a_rise_above_the_lowest_loss(losses, spikes):
    assert loss_spikes(losses, 10) == spikes


def test_spikes_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(200):
        losses = rng.uniform(0, 0.6, rng.integers(1, 12))
        above = [i > 0 and losses[i] > min(losses[:i]) + MARGIN for i in range(len(losses))]
        begun = sum(now and not before for before, now in zip([False, *above], above, strict=False))
        assert loss_spikes(losses, 10) == begun == loss_spikes(losses + 7, 10)
        assert loss_spikes(losses * math.log(2) / math.log(10), 2) == begun  # a share of the loss of guessing
        assert loss_spikes(np.sort(losses)[::-1], 10) == 0


# --- what a network tells them ---------------------------------------------------------------------


def normalized(data):
    """All inputs as the network sees them, in NumPy."""
    x, (shift, scale) = np.asarray(data.x), map(np.asarray, data.normalization[:2])
    return (x - shift) * scale


def values_of(params, data):
    """The hidden values and the logits of the ReLU network of `tests.tiny` for all rows, in NumPy."""
    params, x, hidden = on_host(params), normalized(data).reshape(len(data.x), -1), []
    for layer in ("dense_0", "dense_1"):
        x = np.maximum(x @ params[layer]["kernel"] + params[layer]["bias"], 0)
        hidden.append(x)
    return hidden, x @ params["output"]["kernel"] + params["output"]["bias"]


def with_bias(params, layer, neurons, bias):
    changed = params[layer] | {"bias": params[layer]["bias"].at[np.array(neurons)].set(bias)}
    return params | {layer: changed}


def made(model="mlp", method="static", **changes):
    config, data = make_config(method, model=model, **changes), make_data(model)
    hyper = make_hyper(config)
    return config, data, compiled(config).init(hyper, data)


@pytest.mark.parametrize("batch", [1000, 7])
def test_an_evaluation_tells_what_is_predicted_and_the_range_of_every_neuron(batch, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", batch)
    config, data, state = made()
    params = with_bias(state.params, "dense_0", [3], -0.4)
    hidden, logits = values_of(params, data)
    evaluate = jax.jit(make_train(config, make_tiny_problem(config)).evaluate)
    for start, stop in ((0, 32), (32, 40), (40, 52), (3, 5)):
        found = evaluate(params, state.model_state, data, jnp.int32(start), jnp.int32(stop))
        np.testing.assert_array_equal(found.predicted, np.bincount(logits[start:stop].argmax(1), minlength=3))
        assert found.ranges.keys() == {0, 1}
        for layer, (low, high) in found.ranges.items():
            np.testing.assert_allclose(low, hidden[layer][start:stop].min(0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(high, hidden[layer][start:stop].max(0), rtol=1e-5, atol=1e-6)


def test_a_logit_that_always_wins_leaves_the_other_classes_dead():
    config, data, state = made()
    params = with_bias(state.params, "output", [1], 100.0)
    found = compiled(config).evaluate(params, state.model_state, data, *ENDS[2:])
    assert dead_classes(np.bincount(data.y[ENDS[2] :]), np.asarray(found.predicted)) == [0, 2]


def test_relu_units_with_a_bias_of_minus_100_are_silent():
    config, data, state = made()
    evaluate, rows = compiled(config).evaluate, ENDS[:2]
    dying = with_bias(with_bias(state.params, "dense_0", [2, 9, 13], -100.0), "dense_1", [4], -100.0)
    before, after = (
        [silent_neurons(*both) for both in evaluate(params, state.model_state, data, *rows).ranges.values()]
        for params in (state.params, dying)
    )
    hidden, _ = values_of(state.params, data)
    assert before == [int((np.ptp(layer[: SIZES[0]], axis=0) == 0).sum()) for layer in hidden]
    assert after[0] == before[0] + 3
    assert after[1] >= before[1] + 1


def lstm_values(params, x, layer):
    """Both uses of the activation of an LSTM layer, [batch, steps, units] each, and its outputs, in NumPy."""
    sigmoid, cell = lambda z: 1 / (1 + np.exp(-z)), on_host(params[f"lstm_{layer}"])
    h = c = np.zeros((len(x), cell["input_i"]["bias"].size))
    candidates, cells, outputs = [], [], []
    for row in np.moveaxis(x, 1, 0):
        inputs, recurrent = ([cell[f"{name}_{k}"] for k in "ifgo"] for name in ("input", "recurrent"))
        i, f, g, o = (
            row @ a["kernel"] + a["bias"] + h @ b["kernel"] for a, b in zip(inputs, recurrent, strict=True)
        )
        g = np.maximum(g, 0)
        c = sigmoid(f + 1) * c + sigmoid(i) * g
        h = sigmoid(o) * np.maximum(c, 0)
        candidates, cells, outputs = [*candidates, g], [*cells, np.maximum(c, 0)], [*outputs, h]
    return np.stack([*candidates, *cells], 1), np.stack(outputs, 1)


def test_a_cell_is_asked_at_every_step_and_for_both_of_its_uses():
    config, data, state = made("lstm")
    params = dict(state.params)
    params["lstm_0"] = with_bias(params["lstm_0"], "input_g", [5], -100.0)
    ranges = compiled(config).evaluate(params, state.model_state, data, *ENDS[:2]).ranges
    x = normalized(data)[: SIZES[0]]
    for layer in range(2):
        values, x = lstm_values(params, x, layer)
        np.testing.assert_allclose(ranges[layer].low, values.min((0, 1)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ranges[layer].high, values.max((0, 1)), rtol=1e-4, atol=1e-6)
        assert silent_neurons(*ranges[layer]) == (np.ptp(values, axis=(0, 1)) == 0).sum() >= (layer == 0)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_tells_of_every_activation_function(model):
    config, data = make_config("static", model=model, activation="prelu"), make_data(model)
    fns, hyper = make_train(config, make_tiny_problem(config)), make_hyper(config)
    state = jax.eval_shape(fns.init, hyper, data)
    ranges = jax.eval_shape(fns.evaluate, state.params, state.model_state, data, *ENDS[:2]).ranges
    assert list(ranges) == list(range(len(ranges)))
    slopes = [leaf.shape for path, leaf in jax.tree.leaves_with_path(state.params) if "slope" in str(path)]
    assert sorted(low.shape for low, _ in ranges.values()) == sorted(slopes)
    assert "intermediates" not in state.model_state


def test_more_than_ten_layers_keep_their_order():
    """Channels over all positions, each with the values of a forward pass."""
    config, data, state = made("vgg16")
    model = make_parts(config, make_tiny_problem(config)).model
    variables = {"params": state.params, **state.model_state}
    x = jnp.asarray(normalized(data)[: SIZES[0]])
    _, kept = model.apply(variables, x, train=False, mutable=["intermediates"])
    ranges = compiled(config).evaluate(state.params, state.model_state, data, *ENDS[:2]).ranges
    assert list(ranges) == list(range(13))
    for layer, (low, high) in ranges.items():
        (values,) = kept["intermediates"][f"response_{layer}"]["values"]
        np.testing.assert_allclose(low, values.min((0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(high, values.max((0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_names_are_no_order():
    values = {f"response_{i}": {"values": (i,)} for i in (0, 10, 2)}
    assert list(responses_of({"cell": values})) == [0, 2, 10]


@pytest.mark.parametrize("layout", ["map", "vmap"])
def test_every_run_of_a_cohort_tells_of_itself(layout):
    config, data, state = made()
    changes = ("dense_0", [1], -100.0), ("output", [2], 9.0)
    networks = [state.params, *(with_bias(state.params, *change) for change in changes)]
    mesh = make_mesh(jax.devices()[:1])
    cohort = make_cohort(make_train(config, make_tiny_problem(config)), layout, mesh)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    found = cohort.evaluate(stacked, {}, replicate(data, mesh), *ENDS[:2])
    for lane, params in enumerate(networks):
        alone = compiled(config).evaluate(params, {}, data, *ENDS[:2])
        np.testing.assert_array_equal(found.predicted[lane], alone.predicted)
        for layer, both in alone.ranges.items():
            np.testing.assert_allclose(jax.tree.map(lambda leaf, i=lane: leaf[i], found.ranges[layer]), both, rtol=1e-5)
            assert silent_neurons(*both) == silent_neurons(*(leaf[lane] for leaf in found.ranges[layer]))


def test_a_diverged_network_has_no_range():
    config, data, state = made()
    params = with_bias(state.params, "dense_0", [0], jnp.nan)
    ranges = compiled(config).evaluate(params, {}, data, *ENDS[:2]).ranges
    assert [silent_neurons(*both) for both in ranges.values()] == [None, None]


def test_pieces_of_a_part_make_one_answer(monkeypatch):
    config, data, state = made()
    mesh = make_mesh(jax.devices()[:1])
    cohort = make_cohort(make_train(config, make_tiny_problem(config)), "map", mesh)
    network = jax.tree.map(lambda leaf: leaf[None], (state.params, state.model_state))
    feed = streamed(mesh, np.zeros(1, np.uint32), monkeypatch, 1, batch_size=3)
    assert len(list(feed.rows(0))) > 2
    whole = score_part(cohort.evaluate, Resident(replicate(data, mesh), ENDS), 0, network)
    monkeypatch.setattr(feeds, "BLOCK_BYTES", 3 * data.x[0].nbytes)
    pieces = score_part(cohort.evaluate, feed, 0, network)
    equal(pieces[1:3], whole[1:3])
    assert pieces.predicted.sum() == SIZES[0]
    for layer, both in whole.ranges.items():
        np.testing.assert_allclose(pieces.ranges[layer], both, rtol=1e-5)


# --- what a study writes ---------------------------------------------------------------------------

DYING = (
    "--dataset=digits", "--train_size=400", "--test_size=25", "--hidden_sizes=24,12", "--batch_size=40", "--epochs=4",
    "--method=static", "--execution=masked,sparse", "--sparsity=0.92", "--learning_rate=0.1", "--relu_logits",
    "--cpu_devices=2", "--workdir=w",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stability")
    ended = run(*DYING, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    with (folder / "w" / "results.csv").open(newline="") as file:
        return ended, folder / "w", list(csv.DictReader(file))


@pytest.mark.slow
def test_the_dead_are_those_of_the_network_that_was_saved(study):
    """Everything again in NumPy, from the checkpoint."""
    _, workdir, table = study
    for row in table:
        result = json.loads((workdir / "runs" / row["run_id"] / "result.json").read_text())
        trained = load(find(str(workdir / "runs" / row["run_id"])), FINAL)
        own = read_own(trained.place, make_reader("~"))
        parts, values, hidden = own.parts, np.float64(own.parts.x), []
        values = ((values - own.normalization.shift) * own.normalization.scale).reshape(len(values), -1)
        for name in ("dense_0", "dense_1", "output"):
            values = (matrix(trained, f"{name}/kernel") @ values.T).T + np.asarray(trained.params[name]["bias"])
            values = np.maximum(values, 0)
            hidden.append(values[: parts.train])
        first = parts.train + parts.validation
        named, present = (set(some.tolist()) for some in (values[first:].argmax(1), parts.y[first:]))
        assert result["dead_classes"] == sorted(present - named)
        assert row["dead_classes"] == ":".join(map(str, sorted(present - named)))
        silent = [int((np.ptp(layer, axis=0) <= 1e-6 * layer.max()).sum()) for layer in hidden[:2]]
        assert result["silent_by_layer"] == {"activation_0": silent[0], "activation_1": silent[1]}
        assert int(row["silent_neurons"]) == sum(silent)
        assert float(row["silent_share"]) == sum(silent) / 36
        assert len(row["dead_classes"]) > 3
        assert 0 < sum(silent) < 36


def test_spikes_are_those_of_the_metrics(study):
    _, workdir, table = study
    for row in table:
        lines = (workdir / "metrics" / f"{row['run_id']}.jsonl").read_text().splitlines()
        assert int(row["loss_spikes"]) == loss_spikes([json.loads(line)["train_loss"] for line in lines], 10)


@pytest.mark.slow
def test_spikes_are_counted_in_metrics_that_are_whole(study, tmp_path):
    """Of results that are written again: one whose loss rose, and one that has lost a line."""
    shutil.copytree(study[1], tmp_path / "w")
    risen, torn = ((tmp_path / "w" / "metrics" / f"{row['run_id']}.jsonl") for row in study[2])
    rows = [json.loads(line) for line in risen.read_text().splitlines()]
    rows[2]["train_loss"] = 9.0
    risen.write_text("".join(json.dumps(row) + "\n" for row in rows))
    torn.write_text("".join(torn.read_text().splitlines(keepends=True)[1:]))
    for path in (risen, torn):
        (tmp_path / "w" / "runs" / path.stem / "result.json").unlink()
    assert run(*DYING, cwd=tmp_path).returncode == 0
    with (tmp_path / "w" / "results.csv").open(newline="") as file:
        again = list(csv.DictReader(file))
    assert [row["loss_spikes"] for row in again] == ["1", ""]
    for name in ("dead_classes", "silent_neurons", "test_accuracy", "majority"):
        assert [row[name] for row in again] == [row[name] for row in study[2]]


def test_the_summary_names_dead_classes(study):
    ended, _, table = study
    one = max((row["dead_classes"].split(":") for row in table), key=len)
    head, *lines = [line for line in ended.stdout.splitlines() if "dead classes" in line or " in 1 of 1" in line]
    assert "dead classes" in head
    assert any(", ".join(one[:5]) in line for line in lines)
