"""Slots that follow the connections: what a run computes does not depend on how many it has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.topology.masks import select
from sparse_jax.training import compaction
from sparse_jax.training.cohort import make_cohort, make_mesh, replicate, stack
from sparse_jax.training.compaction import capacities, compacted, fitting
from sparse_jax.training.parts import links_of
from sparse_jax.training.train import make_train
from tests.linked import scattered
from tests.tiny import INTERVAL, make_config, make_data, make_hyper, make_tiny_problem


def test_slots_are_halved_where_that_saves_enough(monkeypatch):
    """Of 1000 slots: 1000, 500, 250, 125, ...; of 9 they are 9, 5, 3, 2, 1."""
    monkeypatch.setattr(compaction, "LEAST_SAVED", 100)
    slots, now = {"a": 1000, "b": 9}, {"a": 1000, "b": 9}
    assert fitting({"a": 500, "b": 9}, slots, now) == {"a": 500, "b": 9}
    assert fitting({"a": 251, "b": 4}, slots, now) == {"a": 500, "b": 5}
    assert fitting({"a": 250, "b": 0}, slots, now) == {"a": 250, "b": 1}
    assert fitting({"a": 501, "b": 1}, slots, now) == now  # 8 slots less are not worth it
    assert fitting({"a": 130, "b": 9}, slots, {"a": 250, "b": 9}) == {"a": 250, "b": 9}


@pytest.mark.slow
def test_starts_are_no_slots():
    """A layer with as many inputs and outputs, less one, as slots."""
    config = make_config("gmp", execution="sparse")
    hyper = make_hyper(config)
    problem = make_tiny_problem(config, hyper)
    inputs, outputs = problem.kernels["dense_1/kernel"]
    problem = problem._replace(slots=dict(problem.slots) | {"dense_1/kernel": inputs + 1})
    hyper = hyper._replace(start=hyper.start | {"dense_1/kernel": np.int32(5)})
    state = jax.tree.map(lambda leaf: leaf[None], make_train(config, problem).init(hyper, make_data()))
    links = links_of(compacted(state, capacities(state.model_state) | {"dense_1/kernel": 7}).model_state)
    of_layer = jax.tree.map(lambda leaf: leaf[0], links["dense_1/kernel"])
    assert (of_layer.capacity, of_layer.shape) == (7, (inputs, outputs))
    assert of_layer.input_starts[-1] == of_layer.output_starts[-1] == 5


def network(params, model_state, lane):
    """Of one run the leaves, kernels as dense arrays."""
    params, model_state = jax.tree.map(lambda leaf: np.asarray(leaf)[lane], (params, model_state))
    links = links_of(model_state)
    dense = {name: scattered(of_layer, select(params, [name])[name]) for name, of_layer in links.items()}
    return dense, {layer: leaf for layer, leaf in params.items() if f"{layer}/kernel" not in dense}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gmp", pytest.param("accset_level", marks=pytest.mark.slow)])
def test_a_run_goes_on_the_same_in_fewer_slots(method, monkeypatch):
    monkeypatch.setattr(compaction, "LEAST_SAVED", 1)
    config = make_config(method, ema=0.75, execution="sparse", optimizer="adam")
    few = {"sparsity": 0.9} if method == "gmp" else {"sparsity": 0.3, "shrink_rate": 0.9}
    hypers = [make_hyper(config, seed=seed, learning_rate=np.float32(0.01), **few) for seed in range(2)]
    mesh = make_mesh(jax.devices()[:1])
    problem = make_tiny_problem(config, hypers[0])
    fns = make_cohort(make_train(config, problem), "map", mesh)
    hyper, data = stack(hypers, 2, mesh), replicate(make_data(), mesh)
    ends, shrunk = [], 0
    for compacting in (False, True):
        state = fns.init(hyper, data)
        for _ in range(8):
            state = fns.steps(state, hyper, data, jnp.int32(INTERVAL))
            state, report = fns.validate(state, data)
            state = fns.update(state, hyper, data)
            used = {name: int(mask.sum(1).max()) for name, mask in state.topology.masks.items()}
            if compacting:
                now = fitting(used, problem.slots, capacities(state.model_state))
                state, shrunk = compacted(state, now), shrunk + (now != capacities(state.model_state))
        assert capacities(state.best.model_state) == dict(problem.slots)
        ends.append((state, report))
    assert shrunk > (method == "gmp")
    (a, of_a), (b, of_b) = ends
    jax.tree.map(np.testing.assert_array_equal, of_a, of_b)
    for lane in range(2):
        for one, other in ((a.evaluated, b.evaluated), ((a.params, a.model_state), (b.params, b.model_state))):
            jax.tree.map(np.testing.assert_array_equal, network(*one, lane), network(*other, lane))
        best = [(state.best.params, state.best.model_state) for state in (a, b)]
        jax.tree.map(np.testing.assert_array_equal, *(network(*of, lane) for of in best))
