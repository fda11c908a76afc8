"""Both executions mean the same: given the same masks, the same trajectory; what has only one of them says so."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.config import METHODS
from sparse_jax.errors import UserError
from sparse_jax.study import execution
from sparse_jax.study.execution import SPARSE_METHODS, executed
from sparse_jax.study.mask_file import as_pairs
from sparse_jax.study.resolve import Connections, connections_of
from sparse_jax.topology import criteria
from sparse_jax.topology.allocation import Allocation
from sparse_jax.topology.masks import select
from sparse_jax.training.optimizers import make_optimizer
from sparse_jax.training.train import make_train
from tests.linked import view_of
from tests.program import SMALL, run
from tests.tiny import make_config, make_data, make_hyper, make_tiny_problem

STEPS, EVERY = 200, 20


def _given(key, signals):
    """Growth where the other execution has grown; layers are told by their shapes."""
    return signals.rates[str(signals.mask.shape)].astype(jnp.uint32)


def functions(config, hyper):
    fns = make_train(config, make_tiny_problem(config, hyper))
    return jax.jit(fns.init), jax.jit(fns.steps), jax.jit(fns.update)


def start(config, hyper, masks):
    """The first state with these masks; as each execution is given them."""
    sparse = make_tiny_problem(config, hyper).slots
    given = {name: np.stack(as_pairs(mask)[:2]) if name in sparse else mask for name, mask in masks.items()}
    hyper = hyper._replace(masks=given)
    fns, data = functions(config, hyper), make_data(config.model)
    return fns, hyper, data, fns[0](hyper, data)


def both(method, model, **changes):
    """(tx, sparse, masked) of one seed and the same first masks; each the functions, their arguments and the state."""
    config = make_config(method, "tanh", model, dropout=0.2, **changes)
    hyper = make_hyper(config, learning_rate=np.float32(0.05))
    masks = functions(config, hyper)[0](hyper, make_data(model)).topology.masks
    masks = {name: np.asarray(mask) for name, mask in masks.items()}
    tx = make_optimizer(config, hyper.learning_rate, hyper.weight_decay)
    return tx, *(start(dataclasses.replace(config, execution=kind), hyper, masks) for kind in ("sparse", "masked"))


def check_equal(one, other, exactly):
    names = one.topology.masks
    for name, mask in names.items():
        np.testing.assert_array_equal(mask, other.topology.masks[name])
    near = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    check = np.testing.assert_array_equal if exactly else near
    jax.tree.map(check, select(one.params, names), select(other.params, names))
    if not exactly:
        jax.tree.map(check, one.params, other.params)
        jax.tree.map(check, one.opt_state, other.opt_state)


@pytest.mark.parametrize(
    ("method", "model", "changes"),
    [
        ("set", "mlp", {}),
        ("set_magnitude", "mlp", {"optimizer": "adam", "initializer": "he_normal"}),
        ("set", "lenet5", {}),
    ],
)
def test_both_executions_follow_the_same_trajectory(method, model, changes, monkeypatch):
    """First weights are the same bits; after 200 steps and 10 updates with the same draws weights differ by < 1e-5."""
    tx, (sparse, hyper, data, a), (masked, given, _, b) = both(method, model, **changes)
    check_equal(view_of(tx, a), b, exactly=True)
    update, moved = None, 0
    for _ in range(STEPS // EVERY):
        a, b = sparse[1](a, hyper, data, jnp.int32(EVERY)), masked[1](b, given, data, jnp.int32(EVERY))
        a, before = sparse[2](a, hyper, data), view_of(tx, a).topology.masks
        seen = view_of(tx, a)
        drawn = {str(mask.shape): mask for mask in seen.topology.masks.values()}
        told = given._replace(rates=given.rates | drawn)
        if update is None:
            monkeypatch.setitem(criteria.GROW, "random", criteria.Criterion(_given))
            update = masked[2].lower(b, told, data).compile()
        b = update(b, told, data)
        check_equal(seen, b, exactly=False)
        moved += sum(int((before[name] != mask).sum()) for name, mask in seen.topology.masks.items())
    assert moved > 100
    assert a.step == STEPS


REFUSED = {
    "dense": "has every connection",
    **dict.fromkeys(
        ("snfs", "dsr", "itop_unexplored", "top_kast", "ac_dc", "chts", "lottery_ticket", "lr_rewinding"),
        "looks at the whole matrix",
    ),
}


def executed_with(config, problem, start):
    """What `executed` makes of a run with so many connections by layer."""
    return executed(config, problem, Connections(Allocation(start, None), start, start))


def test_every_method_is_executed_sparsely_or_says_why_not():
    assert {*SPARSE_METHODS} | REFUSED.keys() == {*METHODS}
    for method, reason in REFUSED.items():
        config = dataclasses.replace(make_config(method), execution="sparse")
        problem = make_tiny_problem(make_config(method))
        connections = connections_of(config, problem)
        with pytest.raises(UserError, match=f"--method={method} {reason}.*; use --execution=masked"):
            executed(config, problem, connections)
        config, problem, _ = executed(dataclasses.replace(config, execution="auto"), problem, connections)
        assert (config.execution, dict(problem.slots)) == ("masked", {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scope": "global"}, "--scope=global looks at the whole matrix of a layer (it can be layer)"),
        ({"structure": "2:4"}, "--structure=2:4 looks at the whole matrix of a layer (it can be none or fan_in)"),
        ({"grow_score": "path3"}, "--grow_score=path3"),
        ({"birth": "kept"}, "--birth=kept"),
        ({"regrow_dropped": False}, "--noregrow_dropped looks"),
        ({"importance_pruning": 0.1}, "--importance_pruning=0.1"),
        ({"initial_topology": "snip"}, "it can be random or fan_in or file:PATH"),
        ({"method": "gmp", "structure": "fan_in"}, "the changing counts of --method=gmp"),
        ({"model": "lstm", "dense_layers": "output", "hidden_sizes": (8,)}, "lacks connections"),
    ],
)
def test_what_has_no_sparse_execution_is_refused(changes, words):
    method, model, others = changes.pop("method", "set"), changes.pop("model", "mlp"), changes
    config = make_config(method, model=model, execution="sparse", **others)
    problem = make_tiny_problem(dataclasses.replace(config, execution="masked"))
    with pytest.raises(UserError) as error:
        executed_with(config, problem, dict.fromkeys(problem.masked, 6))
    assert words in str(error.value)
    assert str(error.value).endswith("; use --execution=masked")


def test_layers_too_large_are_refused_by_name():
    name = "dense_0/kernel"
    problem = make_tiny_problem(make_config())._replace(kernels={name: (2**20, 2**20)}, masked=(name,))
    for kind, count, words in (
        ("masked", 100, "dense_0 has 1,099,511,627,776 positions.*--execution=sparse"),
        ("sparse", 2**31, "dense_0 has 2,147,483,648 connections, and 2\\^31 - 1 is the most"),
    ):
        with pytest.raises(UserError, match=words):
            executed_with(make_config(execution=kind), problem, {name: count})
    _, problem, _ = executed_with(make_config(execution="sparse"), problem, {name: 2**31 - 1})
    assert dict(problem.slots) == {name: 2**31 - 1}


@pytest.mark.parametrize(
    ("kernel", "density", "shape", "sparse"),
    [
        (True, 0.3, (1000, 1000), True),
        (True, 0.31, (1000, 1000), False),
        (True, 0.01, (1000, 1000), True),
        (True, 0.01, (50, 50), False),  # 2,500 positions times 8 examples are little work
        (False, 0.01, (1000, 1000), False),
        (False, 0.00001, (100_000, 100_000), True),  # too large for a mask
    ],
)
def test_auto_goes_by_density_and_size(kernel, density, shape, sparse, monkeypatch):
    monkeypatch.setattr(execution, "has_kernel", lambda: kernel)
    kernels = {"dense_0/kernel": shape, "output/kernel": (shape[1], 3)}
    problem = make_tiny_problem(make_config())._replace(kernels=kernels, masked=tuple(kernels))
    start = {"dense_0/kernel": round(density * shape[0] * shape[1]), "output/kernel": 3 * shape[1]}
    config, problem, notice = executed_with(make_config(execution="auto"), problem, start)
    assert config.execution == ("sparse" if sparse else "masked")
    assert dict(problem.slots) == ({"dense_0/kernel": start["dense_0/kernel"]} if sparse else {})
    assert (notice is not None) == sparse


def test_auto_names_the_layers_that_it_chose(monkeypatch):
    monkeypatch.setattr(execution, "has_kernel", lambda: True)
    kernels = {"dense_0/kernel": (1000, 1000), "dense_1/kernel": (1000, 1000), "output/kernel": (1000, 3)}
    problem = make_tiny_problem(make_config())._replace(kernels=kernels, masked=tuple(kernels))
    start = {"dense_0/kernel": 10_000, "dense_1/kernel": 500_000, "output/kernel": 3000}
    config, _, notice = executed_with(make_config(execution="auto"), problem, start)
    assert config.execution == "sparse:dense_0"
    assert notice == "mlp: executed sparsely dense_0; masked dense_1, output"


@pytest.mark.parametrize(
    ("told", "plugins", "compiler", "found"),
    [
        ("cpu", ["cuda"], ["c++"], True),
        ("", [], ["c++"], True),
        ("", ["cuda"], ["c++"], False),
        ("cpu", [], None, False),
    ],
)
def test_the_kernel_is_for_a_cpu_with_a_compiler(told, plugins, compiler, found, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", told)
    monkeypatch.setattr(execution.importlib.metadata, "entry_points", lambda group: plugins)
    monkeypatch.setattr(execution.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(execution, "find_compiler", lambda: compiler)
    assert execution.has_kernel() == found


def test_without_the_kernel_a_note_says_so_and_training_goes_on(tmp_path, monkeypatch):
    command = (*SMALL, "--execution=sparse", "--sparsity=0.9", "--epochs=1", "--dense_layers=output")
    monkeypatch.setenv("SPARSE_JAX_KERNEL", "off")
    ended = run(*command, "--workdir=jax", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("pure JAX, several times slower: switched off by SPARSE_JAX_KERNEL=off") == 1
    assert json.loads((tmp_path / "jax" / "config.json").read_text())["sessions"][0]["products"] == "pure JAX"
