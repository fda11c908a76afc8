"""Sparse products against dense ones, in both formulations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec
from jax.test_util import check_grads

from sparse_jax.sparse import build, products
from sparse_jax.sparse.links import make_links
from sparse_jax.sparse.products import multiply
from tests.sparse_layer import PRESENT, Layer, each_formulation, needs_kernel


@partial(jax.jit, static_argnums=4)
def y_and_gradients(values, links, x, dy, formulation):
    y, pull = jax.vjp(lambda values, x: multiply(values, links, x, formulation), values, x)
    return y, *pull(dy)


@partial(jax.jit, static_argnums=4)
def gradient_of_values(values, links, x, dy, formulation):
    return jax.vjp(lambda values: multiply(values, links, x, formulation), values)[1](dy)[0]


def assert_close(result, expected):
    """Up to the rounding of long sums."""
    largest = np.max(np.abs(expected), where=np.isfinite(expected), initial=1)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * largest)


def assert_correct(layer, formulation):
    links = layer.links()
    y, dvalues, dx = y_and_gradients(layer.values, links, layer.x, layer.dy, formulation)
    alone = gradient_of_values(layer.values, links, layer.x, layer.dy, formulation)
    for result, expected in zip((y, dvalues, dx), layer.expected(), strict=True):
        assert_close(result, expected)
    assert_close(alone, layer.expected()[1])
    assert not np.any(dvalues[layer.n :])
    assert not np.any(alone[layer.n :])


@each_formulation
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_random_layers(formulation, data):
    n_in, n_out = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    n = data.draw(st.integers(0, n_in * n_out))
    batch = data.draw(st.sampled_from([1, 2, 3, 4, 7, 8, 16]))
    assert_correct(Layer(n_in, n_out, n, batch, spare=data.draw(st.sampled_from([0, 3]))), formulation)


@each_formulation
@pytest.mark.parametrize("batch", [1, 3, 4, 5, 11, 16, 31, 100, 128, 130, 300])
def test_every_width(formulation, batch):
    assert_correct(Layer(30, 20, 250, batch, spare=5), formulation)


@each_formulation
@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1, 1), (6, 5, 30, 16), (40, 3, 0, 4, 7), (3, 40, 2, 128), (0, 4, 0, 3, 2), (4, 5, 9, 0), (4, 0, 0, 2)],
)
def test_corners(formulation, sizes):
    assert_correct(Layer(*sizes), formulation)


@needs_kernel
@pytest.mark.parametrize(
    "sizes", [(300, 400, 60000, 8, 9), (400, 400, 150000, 1), (9000, 12, 60000, 130), (12, 9000, 60000, 130)]
)
def test_work_for_many_threads(sizes):
    """Enough of it to be split; rows of more units than the cache takes, which are done in blocks; parts of inputs."""
    assert_correct(Layer(*sizes), "kernel")


@each_formulation
def test_numerical_gradients(formulation):
    layer = Layer(7, 5, 20, 6)
    f = partial(lambda links, values, x: jnp.sin(multiply(values, links, x, formulation)), layer.links())
    check_grads(f, (layer.values, layer.x), order=1, modes=["rev"], atol=1e-2, rtol=1e-2, eps=1e-2)


def test_blocks_of_connections(monkeypatch):
    monkeypatch.setattr(products, "BLOCK", 64)
    layer = Layer(20, 15, 101, 5, spare=2)
    assert products._blocks(5, (jnp.zeros(103), 0))[0].shape == (9, 12)
    assert_correct(layer, "jax")


@each_formulation
def test_what_is_not_a_number_arrives(formulation):
    """Where it belongs, and nowhere else: 17 columns are computed as two vectors that overlap."""
    layer = Layer(6, 5, 15, 17, spare=1)
    layer.x[2, 3], layer.dy[1, 16], layer.dy[3, 5], layer.dy[4, 2] = np.nan, np.inf, np.inf, np.nan
    layer.values[4] = -np.inf
    layer.values[15:] = np.nan
    with np.errstate(invalid="ignore"):
        weights = np.zeros(layer.shape)
        y, dx = np.zeros((5, 17)), np.zeros((6, 17))
        dvalues = np.zeros(16)
        weights[layer.at] = layer.values[:15]
        for slot, (i, o) in enumerate(zip(*layer.at, strict=True)):
            y[o] += layer.values[slot] * layer.x[i]
            dx[i] += layer.values[slot] * layer.dy[o]
            dvalues[slot] = layer.x[i] @ layer.dy[o]
    for result, expected in zip(
        y_and_gradients(layer.values, layer.links(), layer.x, layer.dy, formulation), (y, dvalues, dx), strict=True
    ):
        assert_close(result, expected)


RUNS = [Layer(12, 10, n, 9, spare=40 - n, seed=n) for n in (40, 0, 7, 33)]


def run_arrays():
    return [np.stack([getattr(run, name) for run in RUNS]) for name in ("inputs", "outputs", "n", "values", "x", "dy")]


def one_run(formulation, inputs, outputs, n, values, x, dy):
    links = make_links(inputs, outputs, n, (12, 10), formulation)
    return y_and_gradients(values, links, x, dy, formulation)


def assert_runs_correct(results):
    for run, *result in zip(RUNS, *results, strict=True):
        for got, expected in zip(result, run.expected(), strict=True):
            assert_close(got, expected)


class TestTransformations:
    """The same numbers under every transformation, here of four runs with other connections each."""

    @each_formulation
    def test_vmap(self, formulation):
        assert_runs_correct(jax.jit(jax.vmap(partial(one_run, formulation)))(*run_arrays()))

    @each_formulation
    def test_map(self, formulation):
        assert_runs_correct(jax.lax.map(lambda run: one_run(formulation, *run), tuple(run_arrays())))

    @each_formulation
    def test_one_layer_for_many_batches(self, formulation):
        run = RUNS[0]
        y = jax.vmap(lambda x: multiply(run.values, run.links(), x, formulation))(jnp.stack([run.x, -run.x]))
        assert_close(y, np.stack([run.expected()[0], -run.expected()[0]]))

    @each_formulation
    def test_scan(self, formulation):
        """Gradient descent on the values in a loop, as training has it."""
        run = RUNS[0]
        links = run.links()

        def loss(values):
            return jnp.vdot(run.dy, multiply(values, links, run.x, formulation))

        def step(values, _):
            return values - 0.01 * jax.grad(loss)(values), None

        values, _ = jax.jit(lambda values: jax.lax.scan(step, values, length=3))(run.values)
        assert_close(values, run.values - 0.03 * run.expected()[1])

    @each_formulation
    def test_shard_map(self, formulation):
        mesh = Mesh(np.array(jax.devices()[:4]), "run")
        spec = PartitionSpec("run")
        several = jax.vmap(partial(one_run, formulation))
        mapped = jax.jit(jax.shard_map(several, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
        assert_runs_correct(mapped(*run_arrays()))


@each_formulation
def test_dx_is_computed_only_where_x_is_differentiated(formulation):
    layer = Layer(12, 10, 40, 9)
    links = layer.links()

    def targets(of):
        loss = lambda values, x: jnp.sum(multiply(values, links, jnp.sin(x), formulation))
        text = jax.jit(jax.grad(loss, of)).lower(layer.values, layer.x).as_text()
        return "cosine" in text, "_backward" in text, "_gradient" in text

    with_kernel = formulation == "kernel"
    assert targets(0) == (False, False, with_kernel)
    assert targets(1)[0]
    assert targets((0, 1)) == (True, with_kernel, False)


def test_the_formulation_is_chosen_by_what_there_is(monkeypatch):
    assert build.chosen_formulation(None) == PRESENT[0]
    assert build.chosen_formulation("jax") == "jax"
    monkeypatch.setattr(build, "kernel", lambda: build.Kernel(None, "pure JAX", "a reason"))
    assert build.chosen_formulation(None) == "jax"
    monkeypatch.undo()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert build.chosen_formulation(None) == "jax"


def test_pure_jax_can_be_exported():
    layer = Layer(6, 5, 15, 3)
    links = layer.links("jax")
    exported = jax.export.export(jax.jit(partial(multiply, formulation="jax")))(layer.values, links, layer.x)
    assert "custom_call" not in exported.mlir_module()
    assert_close(exported.call(layer.values, links, layer.x), layer.expected()[0])
