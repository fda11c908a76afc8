"""Devices that share the batches of a run: they find what one device finds, and all have one network."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.study import fleet
from sparse_jax.topology.methods import METHODS
from sparse_jax.training.cohort import RUN, make_cohort, make_mesh, replicate, stack
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.replicas import fingerprint, fingerprints
from sparse_jax.training.train import make_train
from tests import test_study
from tests.program import SMALL, outcome, run
from tests.test_study import InProcess
from tests.tiny import INTERVAL, make_config, make_data, make_hyper, make_tiny_problem

FAST = ("rigl",)
STEPS = 51


def trained(config, devices, layout="map", steps=STEPS):
    """Two runs with an update after every third step, on two devices that share their batches or on one."""
    mesh = make_mesh(jax.devices()[:devices], devices)
    hypers = [make_hyper(config, seed=seed, sparsity=0.5 + 0.2 * seed) for seed in range(2)]
    problem = make_tiny_problem(config, hypers[0])
    fns = make_cohort(make_train(config, problem, batch_devices=devices), layout, mesh)
    hyper, data = stack(hypers, 2, mesh), replicate(make_data(config.model), mesh)
    state = fns.init(hyper, data)
    for _ in range(steps // INTERVAL):
        state = fns.steps(state, hyper, data, jnp.int32(INTERVAL))
        state = fns.update(state, hyper, data) if config.interval else state
    prints = fingerprints((state.params, state.model_state, state.topology.masks), mesh, RUN)
    state, report = fns.validate(state, data)
    return jax.device_get((state.params, state.topology.masks, state.model_state, report)), np.asarray(prints)


def same(config, layout="map", steps=STEPS, within=1e-5):
    (alone, _), (shared, prints) = (trained(config, devices, layout, steps) for devices in (1, 2))
    assert prints.shape == (2, 2)
    np.testing.assert_array_equal(prints[:, 0], prints[:, 1])
    assert prints[0, 0] != prints[1, 0]
    jax.tree.map(np.testing.assert_array_equal, shared[1], alone[1])  # masks
    for found, expected in zip(jax.tree.leaves(shared), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=within, atol=within)


@pytest.mark.parametrize("method", [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in METHODS
])  # fmt: skip
def test_two_devices_that_share_batches_find_what_one_finds(method):
    same(make_config(method))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"method": "rigl", "execution": "sparse"},  # gradients of absent connections, too
    pytest.param({"augmentation": "dubowski", "label_smoothing": 0.2, "ema": 0.75}, marks=pytest.mark.slow),
    pytest.param({"initial_topology": "snip"}, marks=pytest.mark.slow),
])  # fmt: skip
def test_whatever_trains(changes):
    changes = dict(changes)
    same(dataclasses.replace(make_config(changes.pop("method", "set")), **changes))


@pytest.mark.slow
def test_statistics_of_a_batch_are_of_all_its_parts():
    """Few steps: normalisations of eight examples, one after the other, make much of the last bit."""
    same(make_config("set", model="wide_resnet"), steps=INTERVAL, within=1e-4)


@pytest.mark.slow
def test_lanes_share_batches_too():
    same(make_config("rigl"), "vmap")


@pytest.mark.slow
def test_dropout_has_draws_of_its_own_on_every_device():
    """Were they the same, half of the examples would have the masks of the other half."""
    config = dataclasses.replace(make_config("static"), dropout=0.5)
    (alone, _), (shared, prints) = trained(config, 1), trained(config, 2)
    np.testing.assert_array_equal(prints[:, 0], prints[:, 1])
    jax.tree.map(np.testing.assert_array_equal, shared[1], alone[1])
    assert not np.allclose(shared[0]["dense_0"]["kernel"], alone[0]["dense_0"]["kernel"], atol=1e-4)


# --- the hash --------------------------------------------------------------------------------------


def leaves():
    rng = np.random.default_rng(0)
    return {
        "a": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), "b": jnp.asarray(rng.integers(0, 2, (2, 5)), bool),
        "c": jnp.arange(6, dtype=jnp.int32), "d": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_the_hash_sees_any_change(name):
    tree, seen = leaves(), set()
    seen.add(int(fingerprint(tree)))
    for i in range(tree[name].size):
        flat = np.asarray(tree[name]).ravel().copy()
        flat[i] = ~flat[i] if flat.dtype == bool else flat[i] + 1
        seen.add(int(fingerprint(tree | {name: jnp.asarray(flat).reshape(tree[name].shape)})))
    assert len(seen) == 1 + tree[name].size
    assert int(fingerprint(tree)) in seen


def test_the_hash_sees_an_exchange():
    one, other = jnp.asarray([True, False]), jnp.asarray([False, True])
    assert len({int(fingerprint(pair)) for pair in [(one, other), (other, one), (one, one), (other, other)]}) == 4


def test_a_replica_that_differs_is_found():
    mesh = make_mesh(jax.devices()[:4], 2)
    sharding = jax.NamedSharding(mesh, jax.P(RUN))
    parts = [jax.device_put(jnp.full((1, 3), i == 3), device) for i, device in enumerate(mesh.devices.ravel())]
    prints = np.asarray(fingerprints(jax.make_array_from_single_device_arrays((2, 3), sharding, parts), mesh, RUN))
    np.testing.assert_array_equal(prints[:, 0] == prints[:, 1], [True, False])


# --- studies ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_on_devices_that_share_batches(tmp_path):
    """Masks and results but for the last bits; resumed only as it was begun."""
    command = (*SMALL, "--num_seeds=2", "--method=rigl", "--interval=7", "--sparsity=0.8")
    assert run(*command, "--workdir=one", cwd=tmp_path).returncode == 0
    ended = run(*command, "--workdir=two", "--cpu_devices=4", "--batch_devices=2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "4 × cpu, layout map, 2 to a batch" in ended.stderr
    (found, _), (expected, _) = (outcome(tmp_path / name) for name in ("two", "one"))
    for one, other in zip(found, expected, strict=True):
        assert one["connections"] == other["connections"]
        assert float(one["test_accuracy"]) == pytest.approx(float(other["test_accuracy"]), abs=0.02)
    for changes, message in [
        ((), "this study was begun with --batch_devices=2"),
        (("--batch_devices=3", "--cpu_devices=4"), "--batch_devices=3 does not divide --batch_size=16"),
        (("--batch_devices=4", "--cpu_devices=2"), "--batch_devices=4 does not divide the 2 devices here"),
        (("--batch_devices=2", "--exact_seeds"), "--exact_seeds needs --batch_devices=1"),
    ]:
        refused = run(*command, "--workdir=two", *changes, cwd=tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert message in refused.stderr


def test_runs_whose_replicas_differ_are_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(test_study, "HARDWARE", Hardware(tuple(jax.devices()[:2]), "map", 32, 2))
    differing = functools.partial(lambda real, *args: real(*args).at[0, 1].add(1), fleet.fingerprints)
    monkeypatch.setattr(fleet, "fingerprints", differing)
    done = InProcess(tmp_path, monkeypatch, train_size=[100], hidden_sizes=[(5,)], batch_size=[10], epochs=[1])
    assert not done.store.read_results()
    (failure,) = done.store.root.glob("runs/*/failure.json")
    assert "share a batch differ in the networks" in failure.read_text()
