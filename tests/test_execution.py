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
from sparse_jax.sparse.links import inputs_of_slots
from sparse_jax.study import execution
from sparse_jax.study.execution import SPARSE_METHODS, executed
from sparse_jax.study.mask_file import as_pairs
from sparse_jax.study.resolve import Connections, connections_of
from sparse_jax.study.sources import Lent
from sparse_jax.topology import criteria
from sparse_jax.topology.allocation import Allocation
from sparse_jax.topology.masks import select
from sparse_jax.training.optimizers import make_optimizer
from sparse_jax.training.parts import links_of
from sparse_jax.training.train import make_train
from tests.linked import view_of
from tests.program import SMALL, run
from tests.tiny import INTERVAL, make_config, make_data, make_hyper, make_tiny_problem

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
        pytest.param("set_magnitude", "mlp", {"optimizer": "adam", "initializer": "he_normal"}, marks=pytest.mark.slow),
        pytest.param("set", "lenet5", {}, marks=pytest.mark.slow),
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
        connections = connections_of(config, problem, Lent())
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
        ({"initial_topology": "snip"}, "it can be random or fan_in or radix or cayley or from_run:RUN or file:PATH"),
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


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"method": "srigl", "ablation": 0.3}, True),
        ({"method": "srigl", "ablation": 0}, False),
        ({"method": "granet", "density_schedule": "cyclic"}, True),
        ({"method": "granet", "density_schedule": "linear"}, False),
    ],
)
def test_one_value_of_a_setting_is_refused_and_another_taken(changes, refused):
    method, others = changes["method"], {name: value for name, value in changes.items() if name != "method"}
    config = make_config(method, execution="sparse", **others)
    problem = make_tiny_problem(dataclasses.replace(config, execution="masked"))
    start = {name: 2 * problem.kernels[name][1] for name in problem.masked}
    if refused:
        with pytest.raises(UserError, match=next(iter(others))):
            executed_with(config, problem, start)
    else:
        assert executed_with(config, problem, start)[1].slots == start


def test_slots_are_those_of_the_most_connections():
    """12 × 14 at first with 10 connections; of 50 in the end MEST has 50 + ⌊0.3 · 50⌋ meanwhile, of 160 all 168."""
    for method, start, final, slots in (
        ("granet", 10, 50, 50), ("granet", 50, 10, 50), ("mest_soft", 10, 50, 65), ("mest_soft", 10, 160, 168),
    ):  # fmt: skip
        config = make_config(method, execution="sparse", drop_fraction=0.3)
        problem = make_tiny_problem(make_config(method))._replace(masked=("dense_0/kernel",))
        counts = ({"dense_0/kernel": count} for count in (start, final))
        _, problem, _ = executed(config, problem, Connections(Allocation({}, None), *counts))
        assert dict(problem.slots) == {"dense_0/kernel": slots}


def test_a_layer_that_has_every_connection_for_now_can_be_sparse():
    config = make_config("gmp", execution="sparse", initial_sparsity=0.0)
    problem = make_tiny_problem(dataclasses.replace(config, execution="masked"))
    full = {name: int(np.prod(problem.kernels[name])) for name in problem.masked}
    assert executed_with(config, problem, full)[1].slots == full
    static = dataclasses.replace(make_config("static"), execution="sparse")
    with pytest.raises(UserError, match="lacks connections"):
        executed_with(static, problem, full)


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
        (True, 0.01, (512, 256), True),  # 131,072 positions times 8 examples are 2^20
        (True, 0.01, (512, 255), False),
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
        ("cpu,cuda", ["cuda"], ["c++"], True),
        ("cuda,cpu", ["cuda"], ["c++"], False),
        ("", ["libtpu"], ["c++"], False),
        ("", [], ["c++"], True),
        ("", ["cuda"], ["c++"], False),
        ("cpu", [], None, False),
    ],
)
def test_the_kernel_is_for_a_cpu_with_a_compiler(told, plugins, compiler, found, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", told)
    packages = [name for name in plugins if name == "libtpu"]
    monkeypatch.setattr(
        execution.importlib.metadata, "entry_points", lambda group: [name for name in plugins if name not in packages]
    )
    monkeypatch.setattr(execution.importlib.util, "find_spec", lambda name: name in packages or None)
    monkeypatch.setattr(execution, "find_compiler", lambda: compiler)
    assert execution.has_kernel() == found
    monkeypatch.setenv("SPARSE_JAX_KERNEL", "off")
    assert not execution.has_kernel()


def test_auto_goes_by_the_connections_at_first(monkeypatch):
    """A pruned layer is dense for most of its training."""
    monkeypatch.setattr(execution, "has_kernel", lambda: True)
    config, kernels = make_config("gmp", execution="auto"), {"dense_0/kernel": (1000, 1000)}
    problem = make_tiny_problem(dataclasses.replace(config, execution="masked"))
    problem = problem._replace(kernels=kernels, masked=tuple(kernels))
    counts = ({"dense_0/kernel": count} for count in (10**6, 10**4))
    config, _, _ = executed(config, problem, Connections(Allocation({}, None), *counts))
    assert config.execution == "masked"


def update_of(config, hyper, state=None):
    """The state after an update at step INTERVAL, and that before."""
    fns, data = functions(config, hyper), make_data()
    state = fns[1](fns[0](hyper, data), hyper, data, jnp.int32(INTERVAL)) if state is None else state
    return fns[2](jax.tree.map(jnp.copy, state), hyper, data), state


@pytest.mark.slow
def test_layers_and_updates_draw_by_themselves():
    config = make_config("set", execution="sparse", hidden_sizes=(10, 10, 10))
    hyper = make_hyper(config)
    after, before = update_of(config, hyper)
    later, _ = update_of(config, hyper, before._replace(step=before.step + INTERVAL))
    first, second = (links_of(before.model_state)[f"dense_{i}/kernel"] for i in (1, 2))
    assert not np.array_equal(first.outputs, second.outputs)
    one, other = (links_of(state.model_state)["dense_1/kernel"] for state in (after, later))
    assert not np.array_equal(one.outputs, other.outputs)


@pytest.mark.slow
def test_accset_remembers_its_best_accuracy():
    config = make_config("accset", execution="sparse")
    hyper = make_hyper(config)
    _, before = update_of(config, hyper)
    before = before._replace(topology=before.topology._replace(accuracy=jnp.float32(0.999)))
    after, _ = update_of(config, hyper, before)
    assert after.topology.accuracy == jnp.float32(0.999)


def test_a_place_has_one_sign_for_good():
    """DeepR, Bellec et al. 2018: the sign of a connection is that of its initial weight, however often it grows."""
    config = make_config("deepr", execution="sparse")
    hyper, data = make_hyper(config, noise=np.float32(0.2)), make_data()
    fns = functions(config, hyper)
    state, signs, new = fns[0](hyper, data), {}, set()
    for _ in range(30):
        state = fns[2](fns[1](state, hyper, data, jnp.int32(INTERVAL)), hyper, data)
        for name, links in links_of(state.model_state).items():
            used = int(links.input_starts[-1])
            places = zip(np.asarray(inputs_of_slots(links))[:used], np.asarray(links.outputs)[:used], strict=True)
            for place, positive in zip(places, np.asarray(state.topology.positive[name]), strict=False):
                new |= {positive} if (name, *place) not in signs else set()
                assert signs.setdefault((name, *place), positive) == positive
    assert new == {True, False}


def test_first_weights_count_the_active_connections_of_each_neuron():
    """He's deviation by the connections that a neuron has; by the last bit the executions may differ."""
    config = make_config("set", init_fan="active", initializer="he_normal")
    hyper = make_hyper(config)
    masks = jax.device_get(functions(config, hyper)[0](hyper, make_data()).topology.masks)
    tx = make_optimizer(config, hyper.learning_rate, hyper.weight_decay)
    sparse, masked = (
        start(dataclasses.replace(config, execution=kind), hyper, masks)[3] for kind in ("sparse", "masked")
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), view_of(tx, sparse).params, masked.params)


@pytest.mark.parametrize("method", ["granet", "gmp", "mest_soft", "set"])
def test_a_run_begins_with_the_connections_that_it_should(method):
    grows = {"initial_sparsity": 0.9} if method == "granet" else {}
    for kind in ("sparse", "masked"):
        config = make_config(method, execution=kind)
        hyper = make_hyper(config, sparsity=0.5)
        if grows:
            hyper = hyper._replace(start={name: count // 4 for name, count in hyper.counts.items()})
        masks = functions(config, hyper)[0](hyper, make_data()).topology.masks
        assert {name: int(mask.sum()) for name, mask in masks.items()} == {
            name: int(count) for name, count in hyper.start.items()
        }


@pytest.mark.slow
def test_mest_grows_beyond_the_connections_of_a_file(tmp_path):
    """By as many as under masked execution."""
    command = (*SMALL, "--method=static", "--sparsity=0.9", "--epochs=1", "--workdir=first")
    assert run(*command, cwd=tmp_path).returncode == 0
    (first,) = (tmp_path / "first" / "runs").iterdir()
    counts = []
    for kind in ("masked", "sparse"):
        command = (*SMALL, "--method=mest_soft", f"--initial_topology=file:{first}", "--interval=20")
        assert run(*command, f"--execution={kind}", f"--workdir={kind}", cwd=tmp_path).returncode == 0
        lines = next((tmp_path / kind / "metrics").iterdir()).read_text().splitlines()
        counts.append([json.loads(line)["connections"] for line in lines])
    assert counts[0] == counts[1]
    assert max(counts[0]) > counts[0][-1]


def test_without_the_kernel_a_note_says_so_and_training_goes_on(tmp_path, monkeypatch):
    command = (*SMALL, "--execution=sparse", "--sparsity=0.9", "--epochs=1", "--dense_layers=output")
    monkeypatch.setenv("SPARSE_JAX_KERNEL", "off")
    ended = run(*command, "--workdir=jax", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("pure JAX, several times slower: switched off by SPARSE_JAX_KERNEL=off") == 1
    assert json.loads((tmp_path / "jax" / "config.json").read_text())["sessions"][0]["products"] == "pure JAX"
