"""Settings that are data to a program: networks and trainings equal those of programs in which they are static."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_jax.activations.by_layer import by_layer
from sparse_jax.activations.choice import CHOICES, Operators, by_choice, chosen, learned
from sparse_jax.activations.learnable import LEARNABLE
from sparse_jax.activations.scaling import UNSCALED, Scaling
from sparse_jax.config import ACTIVATIONS, LR_SCHEDULES, MODELS, OPTIMIZERS
from sparse_jax.training.parts import Choices, make_parts
from sparse_jax.training.state import Chosen
from sparse_jax.training.train import make_train
from tests.tiny import make_config, make_data, make_hyper, make_tiny_problem

SLOPE = 0.6
FEW = ("relu", "acon", "symlog", "srs")
X = np.linspace(-3, 3, 60, dtype=np.float32).reshape(6, 10)


# --- one function ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bank():
    """Every function there is, of the second layer: (index, params, scaled, x) -> values, gradients."""
    module = by_choice(Operators(ACTIVATIONS, SLOPE, "neuron"))(1)
    variables = jax.jit(module.init)(jax.random.key(0), X)

    @jax.jit
    def values(index, params, scaled, x):
        choices = {"operator": index, "scaled": scaled}

        def loss(params, x):
            y = module.apply({"params": params, CHOICES: choices}, x)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), y

        gradients, y = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        plain = module.apply({"params": params, CHOICES: choices}, x)
        return y, plain, gradients

    return values, variables["params"]


def named(name, scaling):
    """The function by itself: params, x -> values, gradients."""
    module = by_layer((name,), SLOPE, scaling)(1)

    def apply(params, x):
        return module.apply({"params": params}, x) if hasattr(module, "apply") else module(x)

    def loss(params, x):
        y = apply(params, x)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), y

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_chosen_function_is_the_function(name, scaled, bank):
    values, params = bank
    params = params | {"alpha": jnp.full(10, 1.3), "beta": jnp.full(10, 0.7)}
    base = {key: value + 0.05 for key, value in params["base"].get(name, {}).items()}
    params = params | {"base": params["base"] | ({name: base} if base else {})}
    y, plain, (of_params, of_x) = values(ACTIVATIONS.index(name), params, scaled, X)
    own = {"alpha": params["alpha"], "beta": params["beta"]} | ({"base": base} if base else {})
    (expected, expected_of_x), wanted = named(name, Scaling(1.3, 0.7, "neuron"))(own, X)
    for found, exact in ((y, wanted), (plain, wanted), (of_x, expected_of_x)):
        np.testing.assert_allclose(found, exact, rtol=2e-5, atol=2e-5)
    for key in ("alpha", "beta"):
        np.testing.assert_allclose(of_params[key], expected[key] if scaled else 0, rtol=2e-4, atol=2e-4)
    for other, gradients in of_params["base"].items():
        for key, gradient in gradients.items():
            np.testing.assert_allclose(gradient, expected["base"][key] if other == name else 0, rtol=2e-4, atol=2e-4)


def test_without_scaling_alpha_and_beta_of_one_change_no_bit(bank):
    """As a user compiles it: the compiler of tests rounds two programs differently."""
    values, params = bank
    options = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
    for name in ("tanh", "gelu", "symexp"):
        arguments = ACTIVATIONS.index(name), params, False, X
        y = values.lower(*arguments).compile(options)(*arguments)[0]
        expected = jax.jit(by_layer((name,), SLOPE, UNSCALED)(1)).lower(X).compile(options)(X)
        np.testing.assert_array_equal(y, expected)


def test_functions_of_a_trained_network_are_read_where_they_lie():
    operators = Operators(FEW, SLOPE, "layer")
    config = make_config("static", model="lstm")
    parts = make_parts(config, make_tiny_problem(config), Choices(operators, ("sgd",), ("constant",)))
    variables = jax.jit(partial(parts.model.init, train=False))(jax.random.key(0), jnp.zeros((1, 5, 4)))
    params, state = variables["params"], {CHOICES: variables[CHOICES]}
    params["lstm_1"]["activation_1"] |= {"alpha": jnp.float32(2.0), "beta": jnp.float32(0.5)}
    state = {CHOICES: chosen(state[CHOICES], jnp.array([1, 2]), jnp.bool_(True))}
    x = np.array([-2.0, 0, 1], np.float32)
    first, second = learned(operators, {"params": params, "model_state": state}, x)
    assert (first.alpha, first.beta) == ([1.0], [1.0])
    np.testing.assert_allclose(first.curve, jax.nn.swish(x), rtol=1e-6)  # what acon starts as
    assert (second.alpha, second.beta) == ([2.0], [0.5])
    np.testing.assert_allclose(second.curve, 2 * np.sign(x) * np.log1p(np.abs(0.5 * x)), rtol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_functions_as_data(model):
    config = make_config("static", model=model)
    choices = Choices(Operators(FEW, SLOPE, "layer"), ("sgd",), ("constant",))
    parts = make_parts(config, make_tiny_problem(config), choices)
    x = make_data(model).x[:2]
    shapes = jax.eval_shape(lambda: parts.model.init(jax.random.key(0), x, train=False))
    places = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes[CHOICES])]
    layers = {path[-2].key for path in places}
    assert layers == {f"activation_{i}" for i in range(len(layers))}
    assert set(shapes["params"]) >= set(shapes[CHOICES]) or model in ("lstm", "gru", "transformer")


# --- trainings -------------------------------------------------------------------------------------


def chosen_as(functions, optimizer, schedule, momentum=0.9, scaled=False):
    return Chosen(
        np.array([FEW.index(name) for name in functions], np.int32), np.bool_(scaled),
        np.int32(OPTIMIZERS.index(optimizer)), np.float32(momentum), np.int32(LR_SCHEDULES.index(schedule)),
    )  # fmt: skip


CHOSEN = {"lr_decay_at": (0.5, 0.75), "lr_decay_factor": 0.1, "momentum": 0.9}


@pytest.fixture(scope="module")
def searched():
    """The functions of a program of choices, compiled, and how often `steps` was traced."""
    config = dataclasses.replace(make_config("set"), **CHOSEN)
    choices = Choices(Operators(FEW, SLOPE, "layer"), OPTIMIZERS, LR_SCHEDULES)
    fns, traces = make_train(config, make_tiny_problem(config), choices), []

    def steps(state, hyper, data, count):
        traces.append(1)
        return fns.steps(state, hyper, data, count)

    return jax.jit(fns.init), jax.jit(steps), traces


CASES = [
    (("relu", "acon"), "sgd", "constant"),
    (("symlog", "relu"), "momentum", "cosine"),
    pytest.param(("srs", "symlog"), "nesterov", "step", marks=pytest.mark.slow),
    (("relu", "relu"), "adam", "linear"),
    pytest.param(("acon", "srs"), "adamw", "step", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("functions", "optimizer", "schedule"), CASES)
def test_a_training_is_that_of_the_static_program(functions, optimizer, schedule, searched):
    init, steps, traces = searched
    config = dataclasses.replace(
        make_config("set", activation="relu"), **CHOSEN, activation=functions, optimizer=optimizer, lr_schedule=schedule
    )
    hyper = make_hyper(config, learning_rate=np.float32(0.02))
    static, data = make_train(config, make_tiny_problem(config)), make_data()
    expected = jax.jit(static.steps)(jax.jit(static.init)(hyper, data), hyper, data, 25)
    hyper = hyper._replace(chosen=chosen_as(functions, optimizer, schedule))
    found = steps(init(hyper, data), hyper, data, 25)
    for name in ("dense_0", "dense_1", "output"):
        for key, value in expected.params[name].items():
            np.testing.assert_allclose(found.params[name][key], value, rtol=2e-4, atol=1e-5)
    for i, function in enumerate(functions):
        for key, value in expected.params.get(f"activation_{i}", {}).items():
            np.testing.assert_allclose(found.params[f"activation_{i}"]["base"][function][key], value, rtol=1e-4)
    for name, mask in expected.topology.masks.items():
        np.testing.assert_array_equal(found.topology.masks[name], mask)
        assert not np.any(np.where(mask, 0, found.params[name.split("/")[0]]["kernel"]))
    assert len(traces) == 1  # whatever is chosen


def test_momentum_is_data(searched):
    init, steps, _ = searched
    config = dataclasses.replace(make_config("set"), **CHOSEN | {"momentum": 0.5}, optimizer="momentum")
    hyper, data = make_hyper(config, learning_rate=np.float32(0.02)), make_data()
    static = make_train(config, make_tiny_problem(config))
    expected = jax.jit(static.steps)(jax.jit(static.init)(hyper, data), hyper, data, 25)
    hyper = hyper._replace(chosen=chosen_as(("relu", "relu"), "momentum", "constant", momentum=0.5))
    found = steps(init(hyper, data), hyper, data, 25)
    kernels = (state.params["output"]["kernel"] for state in (found, expected))
    np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-5)


def test_alpha_and_beta_are_trained_where_they_are_asked_to(searched):
    init, steps, _ = searched
    data, hyper = make_data(), make_hyper(dataclasses.replace(make_config("set"), **CHOSEN))
    for scaled in (False, True):
        hyper = hyper._replace(chosen=chosen_as(("relu", "acon"), "adam", "constant", scaled=scaled))
        state = steps(init(hyper, data), hyper, data, 5)
        for i in range(2):
            layer = state.params[f"activation_{i}"]
            assert all(bool(layer[name] != 1) == scaled for name in ("alpha", "beta"))
            for name in LEARNABLE.keys() & set(FEW):
                moved = any(np.ptp(value) > 0 for value in layer["base"][name].values())
                assert moved == (i == 1 and name == "acon")
