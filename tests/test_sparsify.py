"""Training in a loop of one's own: it is the training of the studies, for any pytree and any optimiser."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparse_jax.config import METHODS
from sparse_jax.errors import UserError
from sparse_jax.recipes import RECIPES
from sparse_jax.sparsify import make_sparsifier
from sparse_jax.study.foreign import SETTINGS
from sparse_jax.study.grid import Run
from sparse_jax.study.group import hyper_params
from sparse_jax.study.resolve import connections_of
from sparse_jax.study.sources import Lent
from sparse_jax.topology.criteria import DROP, GROW
from sparse_jax.topology.masks import mask_tree, select
from sparse_jax.training.gradients import gradients
from sparse_jax.training.parts import PARAMS, initial_variables, make_parts, optimizer, rule_of
from sparse_jax.training.timeline import update_due
from sparse_jax.training.train import make_train
from tests.tiny import make_config, make_data, make_tiny_problem

# Equal fan-ins do not divide the few connections of small layers; one test below expects the warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*what does not divide is left out")
ANYWHERE = [method for method in METHODS if "levels" not in RECIPES[method]]
STRONGER = {"noise": 0.05, "first_threshold": 0.1, "shrink_rate": 0.5}


def tiny(method):
    """A configuration, its parts and the hyper-parameters of the small problem that all laws use."""
    config = make_config(method, learning_rate=0.1, weight_decay=1e-3)
    used = {name: value for name, value in STRONGER.items() if getattr(config, name) is not None}
    config = dataclasses.replace(config, **used)
    problem = make_tiny_problem(config)
    return config, problem, hyper_params(Run("run", config, problem, *connections_of(config, problem, Lent()), Lent()))


def chosen(config):
    """The settings of the topology and the method that a configuration uses, as keyword arguments."""
    values = {name: getattr(config, name) for name in SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


@functools.cache
def foreign(method, steps):
    """The networks after every step of a plain loop, on the batches and keys of the studies."""
    (config, problem, hyper), data = tiny(method), make_data()
    parts, key = make_parts(config, problem), jax.random.key(hyper.seed)
    dense, model_state = initial_variables(parts, jax.random.fold_in(key, PARAMS), data, {})
    tx = optimizer(parts, hyper, jnp.int32(0))
    sparsifier = make_sparsifier(
        dense, tx, steps=problem.steps, learning_rate=0.1, outputs="output/kernel", **chosen(config)
    )
    gradient = jax.jit(lambda step, params: gradients(parts, key, step, params, model_state, data)[0])
    step_fn, update_fn = jax.jit(sparsifier.step), jax.jit(sparsifier.update)
    networks = [jax.jit(sparsifier.init)(key, dense)]
    for step in range(steps):
        grads = gradient(jnp.int32(step), networks[-1].params)
        move = update_fn if sparsifier.update_due(step) else step_fn
        accuracy = {"accuracy": 0.1 * step} if move is update_fn and config.shrink_rate else {}
        networks.append(move(key, step, networks[-1], grads, **accuracy))
    return sparsifier, networks


FAST = ("static", "set", "accset", "rigl", "gmp", "top_kast", "mest")


def same_rule(method):
    """Whether one gradient for a step and an update is what the studies have, too."""
    config, problem, hyper = tiny(method)
    rule = rule_of(make_parts(config, problem), hyper)
    return rule.count != "accuracy" and (rule.update != "after_step" or "gradient" not in rule.needs)


@pytest.mark.parametrize("method", [
    pytest.param(method, marks=[] if method in FAST else [pytest.mark.slow]) for method in ANYWHERE if same_rule(method)
])  # fmt: skip
def test_a_loop_of_ones_own_trains_as_the_studies_do(method):
    config, problem, hyper = tiny(method)
    data, fns = make_data(), make_train(config, problem)
    steps = 10
    networks = foreign(method, steps)[1]
    step_fn, update_fn = jax.jit(fns.steps), jax.jit(fns.update)
    state = jax.jit(fns.init)(hyper, data)
    while state.step < steps:
        if update_due(config, problem, int(state.step)):
            state = update_fn(state, hyper, data)
            if fns.update_steps:
                continue
        state = step_fn(state, hyper, data, jnp.int32(1))
    got = networks[-1]
    for name, mask in state.topology.masks.items():
        np.testing.assert_array_equal(got.topology.masks[name], mask)
        np.testing.assert_array_equal(got.topology.explored[name], state.topology.explored[name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), got.params, state.params)


@pytest.mark.parametrize("method", ANYWHERE)
def test_counts_and_zeros(method):
    config, problem, hyper = tiny(method)
    sparsifier, networks = foreign(method, 10)
    tx = optimizer(make_parts(config, problem), hyper, jnp.int32(0))
    for network in networks:
        for name, weight in select(network.params, network.topology.masks).items():
            assert not np.asarray(weight)[~np.asarray(network.topology.masks[name])].any()
        optax.tree.map_params(
            tx,
            lambda slot, mask: np.testing.assert_array_equal(jnp.where(mask, 0, slot), 0),
            network.opt_state,
            mask_tree(network.params, network.topology.trained),
        )
    counts = {name: int(n) for name, n in hyper.start.items()}
    assert sparsifier.connections(networks[0]) == counts
    if config.interval and config.density_schedule is None and config.method not in ("static", "dense", "top_kast"):
        assert any((networks[0].topology.masks[n] != networks[-1].topology.masks[n]).any() for n in counts)


def layers_of_all_kinds():
    """Parameters of a convolution, a recurrent cell and attention, and of a plain pytree."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3, 3))(x).reshape(x.shape[0], -1, 8)
            x = nn.BatchNorm(use_running_average=True)(x)
            x = nn.RNN(nn.LSTMCell(8))(x)
            x = nn.MultiHeadDotProductAttention(num_heads=2)(x)
            return nn.Dense(5)(x.mean(1))

    params = jax.eval_shape(Model().init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    return {"flax": params, "plain": [{"w": jnp.ones((30, 20)), "b": jnp.ones(20)}, (jnp.ones((20, 5)),)]}


def test_any_kernels_of_any_pytree():
    tree = layers_of_all_kinds()
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
    sparsifier = make_sparsifier(
        tree, tx, steps=40, layers=r"kernel$|/w$|^plain/1", method="rigl", sparsity=0.8, interval=5,
        dense_layers="^flax/Dense_0", allocation="uniform",
    )  # fmt: skip
    network = jax.jit(sparsifier.init)(jax.random.key(1), tree)
    counts = sparsifier.connections(network)
    assert {name.rpartition("/")[0] for name in counts if name.startswith("flax/MultiHead")} == {
        f"flax/MultiHeadDotProductAttention_0/{part}" for part in ("query", "key", "value", "out")
    }
    assert sum("LSTMCell" in name for name in counts) == 8
    assert counts.keys() >= {"flax/Conv_0/kernel", "plain/0/w", "plain/1/0"}
    assert not any("Dense_0" in name or "BatchNorm" in name for name in counts)
    step_fn, update_fn = jax.jit(sparsifier.step), jax.jit(sparsifier.update)
    rng = np.random.default_rng(0)
    for step in range(12):
        grads = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), tree)
        move = update_fn if sparsifier.update_due(step) else step_fn
        network = move(jax.random.key(1), step, network, grads)
        assert sparsifier.connections(network) == counts
    for name, weight in select(network.params, counts).items():
        mask = np.asarray(network.topology.masks[name])
        assert counts[name] == round(0.2 * mask.size) or abs(counts[name] - 0.2 * mask.size) <= 1
        assert not np.asarray(weight)[~mask].any()


def test_updates_fall_where_the_settings_say():
    params = {"kernel": jnp.ones((10, 10))}
    common = {"steps": 30, "sparsity": 0.5, "interval": 10}
    due = {}
    for method in ("set", "rigl"):
        sparsifier = make_sparsifier(params, optax.sgd(0.1), method=method, **common)
        due[method] = [step for step in range(30) if sparsifier.update_due(step)]
    assert due == {"set": [9, 19], "rigl": [10, 20]}  # after 10 steps; rigl stops at 75 % of training
    static = make_sparsifier(params, optax.sgd(0.1), steps=30, method="static", sparsity=0.5)
    assert not any(static.update_due(step) for step in range(30))
    by_epoch = make_sparsifier(params, optax.sgd(0.1), steps=30, steps_per_epoch=7, method="set", sparsity=0.5)
    assert [step for step in range(30) if by_epoch.update_due(step)] == [6, 13, 20, 27]


def test_the_allocation_sees_attention_as_a_matrix_where_told():
    params = {"query": {"kernel": jnp.ones((32, 4, 8))}, "dense": {"kernel": jnp.ones((32, 32))}}
    told = make_sparsifier(
        params, optax.sgd(0.1), steps=10, method="static", sparsity=0.8, input_axes={"query/kernel$": 1}
    )
    counts = told.connections(told.init(jax.random.key(0), params))
    assert abs(counts["query/kernel"] - counts["dense/kernel"]) <= 1  # both are 32 × 32
    plain = make_sparsifier(params, optax.sgd(0.1), steps=10, method="static", sparsity=0.8)
    assert plain.connections(plain.init(jax.random.key(0), params))["query/kernel"] < counts["query/kernel"]


def test_masks_may_be_given():
    params = {"a": {"kernel": jnp.ones((4, 6))}, "b": {"kernel": jnp.ones((6, 2))}}
    masks = {name: jax.random.bernoulli(jax.random.key(0), 0.5, leaf["kernel"].shape) for name, leaf in params.items()}
    masks = {f"{name}/kernel": mask for name, mask in masks.items()}
    sparsifier = make_sparsifier(params, optax.sgd(0.1), steps=10, method="set", sparsity=0.5, interval=2)
    network = sparsifier.init(jax.random.key(0), params, masks)
    counts = sparsifier.connections(network)
    assert counts == {name: int(mask.sum()) for name, mask in masks.items()}
    for step in range(4):
        network = sparsifier.update(jax.random.key(0), step, network, jax.tree.map(jnp.ones_like, params))
        assert sparsifier.connections(network) == counts
    with pytest.raises(UserError, match=r"the mask of a/kernel is \(6, 4\), its weights are \(4, 6\)"):
        sparsifier.init(jax.random.key(0), params, masks | {"a/kernel": masks["a/kernel"].T})
    for wrong, message in (
        ({"a/kernel": masks["a/kernel"]}, "the layers are a/kernel, b/kernel"),
        (masks | {"a/kernel": masks["a/kernel"] * 1.0}, "the mask of a/kernel is float32, not bool"),
        (masks | {"b/kernel": masks["b/kernel"] & False}, "the mask of b/kernel has no connection"),
    ):
        with pytest.raises(UserError, match=message):
            sparsifier.init(jax.random.key(0), params, wrong)
    for settings, message in (
        ({"structure": "fan_in"}, "does not keep the structure in every group"),
        ({"method": "gmp", "initial_sparsity": 0.1}, "connections, and the method begins with"),
    ):
        common = {"steps": 10, "method": "set", "sparsity": 0.5, "interval": 2}
        sparsifier = make_sparsifier(params, optax.sgd(0.1), **(common | settings))
        with pytest.raises(UserError, match=message):
            sparsifier.init(jax.random.key(0), params, masks)


def test_connections_that_a_structure_leaves_out_are_warned_of():
    params = {"a": {"kernel": jnp.ones((4, 6))}, "b": {"kernel": jnp.ones((6, 2))}}
    with pytest.warns(UserWarning, match="14 connections where 18 were asked for") as caught:
        sparsifier = make_sparsifier(
            params, optax.sgd(0.1), steps=10, method="set", sparsity=0.5, interval=2, structure="fan_in"
        )
    assert [warning.filename for warning in caught] == [__file__]
    assert sum(sparsifier.connections(sparsifier.init(jax.random.key(0), params)).values()) == 14


OTHERS = {
    "multi": lambda: optax.multi_transform({"a": optax.adam(0.1), "b": optax.sgd(0.1, 0.9)}, {"a": "a", "b": "b"}),
    "masked": lambda: optax.chain(optax.masked(optax.trace(0.9), {"a": True, "b": False}), optax.scale(-0.1)),
    "muon": lambda: optax.contrib.muon(0.1),
    "adafactor": lambda: optax.adafactor(0.1),
    "lion": lambda: optax.lion(0.1),
}


@pytest.mark.parametrize("optimizer", OTHERS)
def test_optimisers_whose_states_are_not_like_the_parameters(optimizer):
    params = {"a": {"kernel": jnp.ones((20, 30))}, "b": {"kernel": jnp.ones((30, 10))}}
    tx = OTHERS[optimizer]()
    sparsifier = make_sparsifier(params, tx, steps=20, method="rigl", sparsity=0.8, interval=2)
    network = sparsifier.init(jax.random.key(0), params)
    shapes = jax.tree.map(jnp.shape, tx.init(params))
    rng = np.random.default_rng(0)
    for step in range(4):
        grads = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
        move = sparsifier.update if sparsifier.update_due(step) else sparsifier.step
        network = move(jax.random.key(0), step, network, grads)
        assert jax.tree.map(jnp.shape, network.opt_state) == shapes
        for name, weight in select(network.params, network.topology.masks).items():
            mask = np.asarray(network.topology.masks[name])
            assert np.asarray(weight)[mask].any()
            assert not np.asarray(weight)[~mask].any()
            for slot in jax.tree.leaves(network.opt_state):
                assert jnp.shape(slot) != mask.shape or not np.asarray(slot)[~mask].any()


@pytest.mark.parametrize("method", ANYWHERE)
def test_half_precision_stays_half_precision(method):
    """As the carry of a scan has to."""
    params = {name: {"kernel": jnp.ones((12, 12), jnp.bfloat16)} for name in "ab"}
    sparsity = {} if method == "dense" else {"sparsity": 0.5}
    interval = {} if method in ("dense", "static") else {"interval": 2}
    birth = {"birth": "gradient"} if method == "set" else {}
    sparsifier = make_sparsifier(
        params, optax.adam(0.1), steps=20, method=method, learning_rate=0.1, outputs="b/kernel", **sparsity, **interval,
        **birth,
    )  # fmt: skip
    key = jax.random.key(0)
    before = jax.eval_shape(sparsifier.init, key, params)
    for move in (sparsifier.step, lambda *args: sparsifier.update(*args, accuracy=0.5)):
        after = jax.eval_shape(move, key, 1, before, params)
        assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, before)


def test_two_leaves_of_one_name_are_refused():
    params = {"a/kernel": jnp.ones((3, 4)), "a": {"kernel": jnp.ones((4, 3))}}
    with pytest.raises(UserError, match="two leaves are called a/kernel"):
        make_sparsifier(params, optax.sgd(0.1), steps=10, method="static", sparsity=0.5)


def test_an_accuracy_is_a_share():
    params = {"kernel": jnp.ones((10, 10))}
    sparsifier = make_sparsifier(params, optax.sgd(0.1), steps=30, method="accset", sparsity=0.5, interval=10)
    network = sparsifier.init(jax.random.key(0), params)
    with pytest.raises(UserError, match=r"accuracy=51 is not a share in \[0, 1\]"):
        sparsifier.update(jax.random.key(0), 9, network, params, accuracy=51)


WRONG = [
    ({"method": "rigel"}, "unknown method 'rigel'. Did you mean 'rigl'"),
    ({"methods": "rigl"}, "unknown setting 'methods'. Did you mean 'method'"),
    ({"sparsity": 1.2}, r"sparsity: 1.2 is outside \[0, 1\)"),
    ({"method": "static", "interval": 5}, "interval=5 has no effect: method='static' does not use it"),
    ({"method": "lottery_ticket"}, "lottery_ticket trains in levels"),
    ({"method": "set"}, "updates every 1epoch: give steps_per_epoch, or interval"),
    ({"layers": "weight$"}, "layers='weight\\$' matches no leaf. Leaves: a/bias, a/kernel"),
    ({"layers": "a/"}, "matches a/bias, which has no inputs and outputs"),
    ({"layers": "("}, r"layers='\(' is not a regular expression"),
    ({"dense_layers": "c"}, "matches no layer. Layers: a, b"),
    ({"method": "srigl"}, "outputs='' is to name the leaf of the network's outputs: a/kernel, b/kernel"),
    ({"method": "deepr"}, "method=deepr needs the learning_rate"),
    ({"birth": "gradient"}, "birth=gradient needs the learning_rate"),
    ({"initial_topology": "snip"}, "initial_topology=snip needs data"),
    ({"allocation": "uniform_dense_first"}, "a pytree has no first layer"),
    ({"structure": "3:5"}, "3:5 does not divide 4 inputs"),
    ({"steps": 100}, "rigl updates every 100 steps, but training has 100 steps.*give an interval"),
    ({"steps": 100, "method": "gmp"}, "leaves no topology update"),
    ({"drop": DROP["saliency"], "drop_score": "random"}, "drop and drop_score: give one of them"),
    ({"drop": DROP["saliency"], "method": "deepr", "learning_rate": 0.1}, "drop has no effect: method='deepr' has no"),
    ({"grow": GROW["momentum"]}, "grow needs 'momentum': method='rigl' has gradient"),
    ({"input_axes": {"a": 3}}, "a/kernel has 2 axes, of which 3 cannot be inputs"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_be_is_refused(wrong, message):
    params = {name: {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)} for name in ("a", "b")}
    with pytest.raises(UserError, match=message):
        make_sparsifier(params, optax.sgd(0.1), **({"steps": 1000, "method": "rigl", "sparsity": 0.5} | wrong))


@pytest.mark.parametrize(
    ("setting", "own"),
    [
        ({"drop_score": "saliency"}, {"drop": DROP["saliency"]}),
        ({"grow_score": "path3"}, {"grow": GROW["path3"]}),
        ({"grow_score": "momentum", "scope": "momentum"}, {"grow": GROW["momentum"], "scope": "momentum"}),
    ],
    ids=["drop", "grow", "momentum"],
)
def test_a_criterion_of_ones_own_takes_the_place_of_a_setting(setting, own):
    params, grads = ({"kernel": jax.random.normal(jax.random.key(seed), (10, 12))} for seed in (1, 2))

    def moved(**settings):
        common = {"steps": 30, "method": "set", "sparsity": 0.5, "interval": 10}
        sparsifier = make_sparsifier(params, optax.sgd(0.1), **common, **settings)
        network = sparsifier.step(jax.random.key(0), 8, sparsifier.init(jax.random.key(0), params), grads)
        return sparsifier.update(jax.random.key(0), 9, network, grads)

    mine, named, other = moved(**own), moved(**setting), moved()
    jax.tree.map(np.testing.assert_array_equal, mine, named)
    assert (mine.topology.masks["kernel"] != other.topology.masks["kernel"]).any()


def test_an_update_asks_for_what_it_needs():
    params = {"kernel": jnp.ones((10, 10))}
    common = {"steps": 30, "sparsity": 0.5, "interval": 10}
    for settings, message in (
        ({"method": "accset"}, "goes by the accuracy"),
        ({"method": "set", "birth": "fresh"}, "fresh parameters"),
    ):
        sparsifier = make_sparsifier(params, optax.sgd(0.1), **common, **settings)
        network = sparsifier.init(jax.random.key(0), params)
        with pytest.raises(UserError, match=message):
            sparsifier.update(jax.random.key(0), 9, network, params)


def test_the_optimiser_sees_the_gradients_of_the_trained_connections_only():
    """As what clips by the norm of all gradients has to."""
    params = {"kernel": jnp.ones((10, 10)), "bias": jnp.ones(10)}
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0))
    sparsifier = make_sparsifier(params, clipped, steps=30, method="static", sparsity=0.7)
    network = sparsifier.init(jax.random.key(0), params)
    grads = {"kernel": jnp.full((10, 10), 3.0), "bias": jnp.zeros(10)}
    after = sparsifier.step(jax.random.key(0), 0, network, grads)
    mask = np.asarray(network.topology.masks["kernel"])
    moved = (1 - np.asarray(after.params["kernel"]))[mask]
    np.testing.assert_allclose(np.linalg.norm(moved), 1, rtol=1e-5)  # of 30 connections, not of 100


def test_accset_shrinks_by_what_accuracy_gains_over_its_best():
    params = {"kernel": jnp.ones((100, 100))}
    settings = {"method": "accset", "sparsity": 0.9, "interval": 2, "shrink_rate": 1.0, "drop_fraction": 0.5}
    sparsifier = make_sparsifier(params, optax.sgd(0.0), steps=30, **settings)
    network, counts = sparsifier.init(jax.random.key(0), params), []
    for step, accuracy in enumerate((0.5, 0.6, 0.55, 0.6, 0.8)):
        network = sparsifier.update(jax.random.key(0), step, network, params, accuracy=accuracy)
        counts.append(sparsifier.connections(network)["kernel"])
    assert counts == [1000, 900, 900, 900, 720]  # 10 % of 1000 are gone for 0.1, 20 % of 900 for 0.2


def test_top_kast_keeps_the_slots_of_what_it_goes_on_training():
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.normal(size=(20, 20)), jnp.float32)}
    sparsifier = make_sparsifier(params, optax.sgd(0.01, 0.9), steps=30, method="top_kast", sparsity=0.8)
    before = sparsifier.init(jax.random.key(0), params)
    grads = {"kernel": jnp.asarray(rng.normal(size=(20, 20)), jnp.float32)}
    stepped = sparsifier.step(jax.random.key(0), 0, before, grads)
    after = sparsifier.update(jax.random.key(0), 0, before, grads)
    both = np.asarray(before.topology.backward["kernel"] & after.topology.backward["kernel"])
    unused = both & ~np.asarray(after.topology.masks["kernel"])
    slots = [np.asarray(jax.tree.leaves(network.opt_state)[0]) for network in (stepped, after)]
    assert unused.sum() > 50
    assert slots[1][unused].all()
    np.testing.assert_array_equal(slots[0][both], slots[1][both])
    assert not slots[1][~both].any()
