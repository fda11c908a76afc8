"""Exported networks: what the files hold is what our own functions compute, with and without dead neurons."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.export
import numpy as np
import pytest
import scipy.sparse

from sparse_jax.data.splits import Splits
from sparse_jax.errors import UserError
from sparse_jax.study import export
from sparse_jax.study.finished import FinishedRun
from sparse_jax.study.portable import compact
from sparse_jax.study.shrink import Layer, shrink
from sparse_jax.study.store import Store
from sparse_jax.study.trained import FINAL, Trained, matrix
from sparse_jax.topology.masks import apply_masks, select
from sparse_jax.training.parts import links_of, make_parts, predict
from sparse_jax.training.train import make_train
from tests.linked import scattered
from tests.tiny import SIZES, make_config, make_data, make_hyper, make_tiny_problem

# --- dead neurons ----------------------------------------------------------------------------------


def random_layers(rng, widths, density):
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        mask = rng.random((n_out, n_in)) < density
        weights = rng.normal(size=mask.shape) * mask
        at = np.nonzero(mask)
        kernel = scipy.sparse.csr_array((weights[at].astype(np.float32), at), shape=mask.shape)
        kernel.data[: kernel.nnz // 4] = 0  # a connection may have no weight
        layers.append(Layer(kernel, rng.normal(size=n_out).astype(np.float32)))
    return layers


def outputs(layers, functions, x):
    """Brute force: every neuron by itself."""
    for i, layer in enumerate(layers):
        y = np.zeros((len(x), len(layer.bias)))
        for (out, into), weight in np.ndenumerate(layer.kernel.toarray()):
            y[:, out] += weight * x[:, into]
        y += layer.bias
        x = functions[i](y) if i < len(functions) else y
    return x


def alive(layers):
    """Of every hidden layer the neurons on a path from an input to an output, by following each path."""
    links = [set(zip(*reversed(layer.kernel.tocoo().coords), strict=True)) for layer in layers]  # zeros are entries
    found = [set() for _ in layers[1:]]

    def follow(i, path):
        if i == len(links):
            for neurons, neuron in zip(found, path[1:-1], strict=True):
                neurons.add(int(neuron))
            return
        for into, out in links[i]:
            if into == path[-1]:
                follow(i + 1, [*path, out])

    for start in range(layers[0].kernel.shape[1]):
        follow(0, [start])
    return [sorted(neurons) for neurons in found]


@pytest.mark.parametrize("seed", range(60))
def test_shrink_keeps_the_outputs_and_no_dead_neuron(seed):
    rng = np.random.default_rng(seed)
    widths, density = rng.integers(1, 7, rng.integers(3, 6)), rng.choice([0.1, 0.25, 0.5])
    layers = random_layers(rng, widths, density)
    slopes = [rng.normal(size=width) for width in widths[1:-1]]  # a parameter a neuron
    functions = [lambda y, a=a: np.tanh(a * y) + 0.3 for a in slopes]  # h(0) is not 0
    left, kept = shrink(layers, lambda i, x: functions[i](x))
    assert [neurons.tolist() for neurons in kept] == alive(layers)
    smaller = [lambda y, a=a[neurons]: np.tanh(a * y) + 0.3 for a, neurons in zip(slopes, kept, strict=True)]
    x = rng.normal(size=(5, widths[0]))
    np.testing.assert_allclose(outputs(left, smaller, x), outputs(layers, functions, x), rtol=1e-5, atol=1e-5)
    for before, after in itertools.pairwise(left):
        assert (np.diff(before.kernel.indptr) > 0).all()
        assert (np.diff(after.kernel.tocsc().indptr) > 0).all()
    assert (left[0].kernel.shape[1], left[-1].kernel.shape[0]) == (widths[0], widths[-1])


# --- networks --------------------------------------------------------------------------------------


@functools.cache
def trained_network(model="mlp", activation="srelu", execution="masked", sparsity=0.9, **changes):
    """A network with random biases and parameters of its functions, as `load` gives it; parts of its run and data."""
    config = dataclasses.replace(make_config("static", activation, model, execution=execution), **changes)
    hyper = make_hyper(config, sparsity=sparsity)
    problem, data = make_tiny_problem(config, hyper), make_data(model)
    state = jax.jit(make_train(config, problem).init)(hyper, data)
    key = jax.random.key(1)
    drawn = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(key, leaf.shape), state.params)
    params = apply_masks(drawn, state.topology.masks)
    links = links_of(state.model_state)
    masks = {name: np.asarray(mask) for name, mask in state.topology.masks.items() if name not in links}
    place = FinishedRun("run", Store(None), "run", config, {}, {})
    params, model_state = jax.tree.map(np.asarray, (params, state.model_state))
    return Trained(place, FINAL, 0, problem.kernels, params, model_state, masks), problem, data


def logits(trained, problem, data):
    parts = make_parts(trained.config, problem)
    return predict(parts, trained.params, trained.model_state, parts.normalize(data.normalization, data.x))


def exported(folder, trained, problem, data):
    parts = Splits(np.asarray(data.x), np.asarray(data.y), *SIZES)
    lines = export.export(trained, problem, data.normalization, parts, {"tiny": {}}, str(folder))
    about = json.loads((folder / "model.json").read_text())
    program = jax.export.deserialize((folder / "model.stablehlo").read_bytes())
    return lines, about, program


NETWORKS = [
    ("mlp", "srelu", "masked", {"dense_layers": "output", "dropout": 0.5}),
    ("mlp", "srelu", "sparse", {"activation_scale": "layer", "activation_alpha": 1.5}),
    ("mlp", "cos", "masked", {"hidden_sizes": (9, 8, 7)}),  # h(0) is 1
    ("lenet5_safs", "srelu", "sparse", {}),
]


@pytest.mark.parametrize(("model", "activation", "execution", "changes"), NETWORKS)
def test_the_exported_function_is_the_network(tmp_path, model, activation, execution, changes):
    network = trained_network(model, activation, execution, 0.95 if model != "mlp" else 0.85, **changes)
    x = network[2].x
    lines, about, program = exported(tmp_path / "out", *network)
    expected = np.asarray(logits(*network))
    assert "dead" in lines[0]
    assert "exported as it is" not in lines[0]
    assert about["compaction"]["kept_neurons"]
    assert program.platforms == ("cpu", "cuda", "tpu")
    for batch in (1, len(expected)):  # the size of a batch is open
        found = np.asarray(program.call(x[:batch]))
        np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_array_equal(found.argmax(-1), expected[:batch].argmax(-1))
    assert b"sparse_jax_" not in (tmp_path / "out" / "model.stablehlo").read_bytes()  # nothing of the C++ kernel
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


@pytest.mark.parametrize("execution", ["masked", "sparse"])
def test_a_csr_matrix_is_the_kernel(execution):
    trained, *_ = trained_network("mlp", "relu", execution)
    x, links = np.random.default_rng(0).normal(size=14).astype(np.float32), links_of(trained.model_state)
    kernel = select(trained.params, ("dense_1/kernel",))["dense_1/kernel"]
    dense = scattered(links["dense_1/kernel"], kernel) if links else kernel
    found = matrix(trained, "dense_1/kernel")
    assert found.has_sorted_indices
    assert found.nnz == trained.connections["dense_1/kernel"]
    np.testing.assert_allclose(found @ x, dense.T @ x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.toarray(), dense.T)


def test_the_files_are_a_network_by_themselves(tmp_path):
    """NumPy and scipy compute the outputs from the files alone."""
    network = trained_network("mlp", "relu", "sparse")
    exported(tmp_path / "out", *network)
    weights, x = np.load(tmp_path / "out" / "weights.npz", allow_pickle=False), np.asarray(network[2].x)
    x = ((x - weights["normalization:shift"]) * weights["normalization:scale"]).reshape(len(x), -1)
    for name in ("dense_0", "dense_1", "output"):
        kernel = scipy.sparse.load_npz(tmp_path / "out" / "csr" / f"{name}.npz")
        y = (kernel @ x.T).T + weights[f"{name}/bias"]
        x = np.maximum(y, 0)
    np.testing.assert_allclose(y, logits(*network), rtol=1e-5, atol=1e-5)


def test_a_network_without_an_input_that_reaches_an_output(tmp_path):
    trained, problem, data = trained_network("mlp", "srelu", "masked", 0.6)
    masks = {name: np.zeros(shape, bool) for name, shape in trained.kernels.items()}
    empty = trained._replace(params=_dense(trained), masks=masks)
    lines, about, program = exported(tmp_path / "out", empty, problem, data)
    assert lines[0].startswith("24 of 24 hidden neurons")
    assert [layer["exported"]["shape"] for layer in about["layers"]] == [[12, 0], [0, 0], [0, 3]]
    assert np.unique(np.asarray(program.call(data.x)), axis=0).shape == (1, 3)


def _dense(trained):
    kernels = {name.removesuffix("/kernel"): np.zeros(shape, np.float32) for name, shape in trained.kernels.items()}
    return trained.params | {name: trained.params[name] | {"kernel": kernel} for name, kernel in kernels.items()}


def test_what_is_no_chain_or_would_change_is_exported_as_it_is():
    trained, problem, data = trained_network("gru", "tanh")
    done = compact(trained, problem, data.normalization, data.x)
    assert done.note == "the layers of gru are no chain of dense ones: exported as it is"
    assert done.network.params is trained.params
    trained, problem, data = trained_network("mlp", "srelu", "masked", 0.0)
    done = compact(trained, problem, data.normalization, data.x)
    assert (done.note, done.kept) == ("no dead neurons: exported as it is", {})


def test_outputs_that_change_keep_the_dead_neurons(monkeypatch):
    """As by a step function, to which the last bit of a sum may be all: here the constants are wrong."""
    trained, problem, data = trained_network("mlp", "cos")
    monkeypatch.setattr("sparse_jax.study.portable.activate", lambda config, params, layer, x: x + 3)
    done = compact(trained, problem, data.normalization, data.x)
    assert "would differ" in done.note
    assert done.network.params is trained.params


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "file", "is a file"), (tmp_path, "is not empty"), ("~nosuchuser/a", "cannot be")):
        with pytest.raises(UserError, match=reason):
            export.check_folder(str(path))
    (tmp_path / "empty").mkdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparse_jax.study.folder.write_atomic", full)
    network = trained_network("mlp", "cos")
    with pytest.raises(UserError, match="No space left"):
        exported(tmp_path / "empty", *network)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
    assert not any((tmp_path / "empty").iterdir())
