"""Activation functions: values by hand, gradients by differences, and what networks may rely on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sparse_jax.activations.by_layer import ACTIVATIONS, by_layer
from sparse_jax.activations.fixed import FIXED, all_relu, linear
from sparse_jax.activations.learnable import ACON, FALU, LEARNABLE, SRS, PReLU, SReLU, SwishBeta, TanhSoft1, TanhSoft2
from sparse_jax.activations.scaling import SCALES, UNSCALED, Scaling
from sparse_jax.errors import UserError
from sparse_jax.training import start
from sparse_jax.training.parts import make_network
from sparse_jax.training.train import make_train
from tests.tiny import make_config, make_data, make_hyper, make_tiny_problem

ALPHA = 0.6
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, section 3
SCALINGS = [Scaling(1.3, 0.7, scale) for scale in ("fixed", "layer", "neuron")]
WIDE = np.linspace(-50, 50, 2001, dtype=np.float32)[None]
SIGMOID_1, SIGMOID_2 = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))  # σ(−x) = 1 − σ(x)

# name -> the values at −2, 0 and 1 in terms of exp, tanh and erf; of learnable ones at their initial parameters
GOLDEN = {
    "relu": (0, 0, 1),
    "relu6": (0, 0, 1),
    "leaky_relu": (-0.02, 0, 1),
    "elu": (math.exp(-2) - 1, 0, 1),
    "selu": (SELU_SCALE * SELU_ALPHA * (math.exp(-2) - 1), 0, SELU_SCALE),
    "gelu": (-1 * (1 + math.erf(-2 / math.sqrt(2))), 0, (1 + math.erf(1 / math.sqrt(2))) / 2),
    "swish": (-2 / (1 + math.exp(2)), 0, 1 / (1 + math.exp(-1))),
    "hardswish": (-2 * 1 / 6, 0, 1 * 4 / 6),
    "mish": (-2 * math.tanh(math.log(1 + math.exp(-2))), 0, math.tanh(math.log(1 + math.e))),
    "tanh": (math.tanh(-2), 0, math.tanh(1)),
    "hardtanh": (-1, 0, 1),
    "sigmoid": (1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-1))),
    "hard_sigmoid": (1 / 6, 3 / 6, 4 / 6),
    "softsign": (-2 / 3, 0, 1 / 2),
    "softplus": (math.log1p(math.exp(-2)), math.log(2), math.log1p(math.exp(1))),
    "logsigmoid": (-math.log(1 + math.exp(2)), -math.log(2), -math.log(1 + math.exp(-1))),
    "symlog": (-math.log(3), 0, math.log(2)),
    "symexp": (1 - math.exp(2), 0, math.e - 1),
    "sin": (math.sin(-2), 0, math.sin(1)),
    "cos": (math.cos(2), 1, math.cos(1)),
    "sin_pi": (0, 0, 0),
    "cos_pi": (1, 1, -1),
    "step": (0, 0, 1),
    "gaussian": (math.exp(-2), 1, math.exp(-1 / 2)),
    "negation": (2, 0, -1),
    "abs": (2, 0, 1),
    "elish": ((math.exp(-2) - 1) / (1 + math.exp(2)), 0, 1 / (1 + math.exp(-1))),
    "hard_elish": (0, 0, 1),
    "linear": (-2, 0, 1),
    "all_relu": (-ALPHA * -2, 0, 1),  # the first hidden layer: slope −α
    "prelu": (0.25 * -2, 0, 1),
    "swish_beta": (-2 * (1 - SIGMOID_2), 0, SIGMOID_1),
    "acon": (-2 * (1 - SIGMOID_2), 0, SIGMOID_1),
    "tanhsoft_1": (math.tanh(0.87 * -2) * math.log(1 + math.exp(-2)), 0, math.tanh(0.87) * math.log(1 + math.e)),
    "tanhsoft_2": (-2 * math.tanh(0.6 * math.exp(-2)), 0, math.tanh(0.6 * math.e)),
    "srs": (-2 / (-2 / 5 + math.exp(2 / 3)), 0, 1 / (1 / 5 + math.exp(-1 / 3))),
    "falu": (-2 * (1 - SIGMOID_2), 0, SIGMOID_1),
}
# x σ(2x) at −2 and 1, and h of falu there
G_NEGATIVE, G_POSITIVE = -2 / (1 + math.exp(4)), SIGMOID_2
H_NEGATIVE, H_POSITIVE = (g + s * (1 - g) for g, s in ((G_NEGATIVE, 1 - SIGMOID_2), (G_POSITIVE, SIGMOID_1)))
# module, other parameters -> the values at −2, 0 and 1
LEARNT = [
    (PReLU, {"slope": -0.5}, (1, 0, 1)),
    (SwishBeta, {"beta": 2.0}, (G_NEGATIVE, 0, G_POSITIVE)),
    (ACON, {"p1": 3.0, "p2": 1.0, "beta": 0.5}, (-4 * (1 - SIGMOID_2) - 2, 0, 2 * SIGMOID_1 + 1)),
    (TanhSoft1, {"alpha": -1.0}, (math.tanh(2) * math.log(1 + math.exp(-2)), 0, -math.tanh(1) * math.log(1 + math.e))),
    (TanhSoft2, {"beta": -2.0, "gamma": 0.5}, (2 * math.tanh(2 / math.e), 0, -math.tanh(2 * math.exp(0.5)))),
    (SRS, {"alpha": 2.0, "beta": 1.0}, (-2 / (-1 + math.exp(2)), 0, 1 / (1 / 2 + math.exp(-1)))),
    (FALU, {"alpha": 0.5, "beta": 2.0}, (  # σ(−4) = g(−2) / −2; at 0: 0 + 0.5 · 0.5 · 1
        G_NEGATIVE + 0.5 * (G_NEGATIVE / -2) * (1 - G_NEGATIVE), 0.25,
        G_POSITIVE + 0.5 * SIGMOID_2 * (1 - G_POSITIVE),
    )),
    (FALU, {"alpha": 1.0, "beta": 2.0}, (
        G_NEGATIVE + (G_NEGATIVE / -2) * (1 - G_NEGATIVE), 0.5, G_POSITIVE + SIGMOID_2 * (1 - G_POSITIVE),
    )),
    (FALU, {"alpha": 1.5, "beta": 2.0}, (  # at 0: h = 0.5, so that 1 − 2h = 0
        H_NEGATIVE + 0.5 * (G_NEGATIVE / -2) * (1 - 2 * H_NEGATIVE), 0.5,
        H_POSITIVE + 0.5 * SIGMOID_2 * (1 - 2 * H_POSITIVE),
    )),
]  # fmt: skip


class Net(nn.Module):
    """One activation function as the first hidden layer of a model has it."""

    names: tuple[str, ...]
    layer: int = 0
    scaling: Scaling = UNSCALED

    @nn.compact
    def __call__(self, x):
        return by_layer(self.names, ALPHA, self.scaling)(self.layer)(x)


def apply(name, x, scaling=UNSCALED):
    """The function with its initial parameters."""
    net = Net((name,), scaling=scaling)
    return net.apply(net.init(jax.random.key(0), x), x)


def with_parameters(module, values, x):
    """A learnable function of one neuron at the parameters given, at every entry of x."""
    params = {name: jnp.array([value]) for name, value in values.items()}
    return module().apply({"params": params}, jnp.asarray(x, jnp.float32).reshape(-1, 1))[:, 0]


# --- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_half_precision_stays_half_and_near(name, scale):
    x = jnp.linspace(-4, 4, 33)[:, None]
    full, half = (apply(name, x.astype(dtype), Scaling(1.25, 0.75, scale)) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), full, rtol=0.05, atol=0.1 if name != "step" else 2)


@pytest.mark.parametrize("name", ["sin_pi", "cos_pi"])
def test_periods_are_kept_far_from_0(name):
    x = jnp.array([0.25, 0.5, 1.0])
    for dtype, far in ((jnp.float32, 2.0**20), (jnp.bfloat16, 32.0)):
        shifted = FIXED[name]((x + far).astype(dtype)).astype(jnp.float32)
        np.testing.assert_allclose(shifted, FIXED[name](x), atol=0.01)
    assert jnp.isfinite(jax.grad(FIXED[name])(jnp.float32(3e38)))


@pytest.mark.parametrize("name", GOLDEN)
def test_values(name):
    x = jnp.array([[-2.0, 0.0, 1.0]])
    np.testing.assert_allclose(apply(name, x)[0], GOLDEN[name], rtol=2e-6, atol=3e-7)


def test_every_activation_has_values():
    assert set(GOLDEN) | {"srelu"} == set(ACTIVATIONS)  # srelu begins at random
    assert {module for module, *_ in LEARNT} | {SReLU} == set(LEARNABLE.values())


@pytest.mark.parametrize(("module", "params", "expected"), LEARNT)
def test_values_at_other_parameters(module, params, expected):
    np.testing.assert_allclose(with_parameters(module, params, [-2, 0, 1]), expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("relu6", [5, 7], [5, 6]),
        ("hardtanh", [-0.5, 0.5, 3], [-0.5, 0.5, 1]),
        ("hard_sigmoid", [-4, -3, 3, 4], [0, 0, 1, 1]),
        ("hardswish", [-4, -1, 3, 4], [0, -1 * 2 / 6, 3, 4]),
        ("hard_elish", [-0.5, 0.5, 3], [(math.exp(-0.5) - 1) * 0.25, 0.5 * 0.75, 3]),
        ("sin_pi", [-0.5, 0.5, 1 / 6], [-1, 1, 0.5]),
        ("cos_pi", [0.5, 1 / 3], [0, 0.5]),
        ("step", [-1e-30, 1e-30], [0, 1]),
        ("gaussian", [2, -1], [math.exp(-2), math.exp(-1 / 2)]),
    ],
)
def test_the_other_pieces(name, x, expected):
    np.testing.assert_allclose(FIXED[name](jnp.float32(x)), expected, rtol=2e-6, atol=1e-7)


def test_srelu_has_three_pieces_and_two_thresholds():
    # t_l = −1, a_l = 0.5, t_r' = −1 + |3| = 2, a_r = 2: 0.5 (x + 1) − 1 | x | 2 + 2 (x − 2)
    values = {"t_left": -1.0, "a_left": 0.5, "t_right": -3.0, "a_right": 2.0}
    np.testing.assert_allclose(with_parameters(SReLU, values, [-3, -1, 0.5, 2, 4]), [-2, -1, 0.5, 2, 6])


def test_srelu_starts_as_published_with_parameters_for_each_neuron():
    params = SReLU().init(jax.random.key(0), jnp.ones((2, 1000)))["params"]
    assert all(leaf.shape == (1000,) for leaf in params.values())
    assert (params["t_left"] == 0).all()
    assert (params["a_right"] == 1).all()
    for name, high in (("a_left", 1), ("t_right", 5)):
        assert params[name].min() >= 0
        assert params[name].max() <= high
        np.testing.assert_allclose(params[name].mean(), high / 2, rtol=0.1)


def test_prelu_learns_a_slope_for_each_neuron():
    params = {"slope": jnp.array([0.1, -0.2])}
    np.testing.assert_allclose(PReLU().apply({"params": params}, jnp.array([[-1.0, -1.0]])), [[-0.1, 0.2]])


def test_all_relu_alternates_by_layer():
    for layer, slope in enumerate((-0.75, 0.75, -0.75)):
        np.testing.assert_allclose(all_relu(0.75, layer)(jnp.array([-2.0, 3.0])), [slope * -2, 3])


# --- one is a case of another ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "params", "other"),
    [
        (SwishBeta, {"beta": 1.0}, jax.nn.swish),
        (SwishBeta, {"beta": 0.0}, lambda x: x / 2),
        (ACON, {"p1": 1.0, "p2": 0.0, "beta": 1.7}, lambda x: x * jax.nn.sigmoid(1.7 * x)),
        (ACON, {"p1": 0.4, "p2": 0.4, "beta": 1.0}, lambda x: 0.4 * x),
        (ACON, {"p1": 1.0, "p2": 0.25, "beta": 1e4}, lambda x: jnp.maximum(x, 0.25 * x)),
        (TanhSoft1, {"alpha": 1e4}, lambda x: jnp.sign(x) * jax.nn.softplus(x)),
        (TanhSoft2, {"beta": 1.0, "gamma": 0.0}, lambda x: x * np.tanh(1)),
        (TanhSoft2, {"beta": 1e-20, "gamma": 8.0}, lambda x: x * np.tanh(1e-20 * np.exp(8 * x))),
        (SRS, {"alpha": 1e8, "beta": 2.0}, lambda x: x * jnp.exp(x / 2)),
        (FALU, {"alpha": 1.0, "beta": 1.0}, jax.vmap(jax.grad(jax.nn.swish))),
        (FALU, {"alpha": 1.0 + 1e-6, "beta": 1.0}, jax.vmap(jax.grad(jax.nn.swish))),
        (FALU, {"alpha": -3.0, "beta": 0.5}, jax.nn.swish),  # clipped to 0 and 1
    ],
)
def test_a_learnable_function_becomes_a_simpler_one(module, params, other):
    x = np.linspace(-6.05, 6.05, 100, dtype=np.float32)
    np.testing.assert_allclose(with_parameters(module, params, x), other(x), rtol=1e-4, atol=1e-5)


def test_falu_is_clipped_at_the_top():
    x = np.linspace(-6, 6, 100)
    beyond, at = ({"alpha": 2.0 + over, "beta": 10.0 + over} for over in (5.0, 0.0))
    np.testing.assert_array_equal(with_parameters(FALU, beyond, x), with_parameters(FALU, at, x))


def test_symexp_undoes_symlog():
    np.testing.assert_allclose(FIXED["symexp"](FIXED["symlog"](WIDE)), WIDE, rtol=2e-5, atol=1e-6)


# --- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", [UNSCALED, *SCALINGS])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_are_finite_and_right(name, scaling):
    net = Net((name,), scaling=scaling)
    variables = net.init(jax.random.key(0), WIDE)
    assert jnp.isfinite(net.apply(variables, WIDE)).all()
    gradients = jax.grad(lambda *given: net.apply(*given).sum(), argnums=(0, 1))(variables, WIDE)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    inner = jnp.array([[-3.13, -1.21, -0.49, 0.51, 1.23]])  # away from the kinks, also 0.7 times these
    step = 1e-2
    difference = (apply(name, inner + step, scaling) - apply(name, inner - step, scaling)) / (2 * step)
    gradient = jax.grad(lambda x: apply(name, x, scaling).sum())(inner)
    np.testing.assert_allclose(gradient, difference, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["symlog", "symexp", "sin", "softsign", "tanh", "hardtanh", "srs"])
def test_what_goes_through_0_with_slope_1_has_this_gradient_there(name):
    np.testing.assert_allclose(jax.grad(lambda x: apply(name, x).sum())(jnp.zeros((1, 1))), [[1]])


@pytest.mark.parametrize(
    ("module", "params"),
    [
        *[(SRS, {"alpha": a, "beta": b}) for a in (-3.0, 0.0, 1.1, 5.0, 1e4) for b in (-1.0, 0.0, 0.1, 3.0, 1e4)],
        *[(TanhSoft2, {"beta": b, "gamma": g}) for b in (-30.0, 0.0, 30.0) for g in (-20.0, 0.0, 20.0)],
        *[(FALU, {"alpha": a, "beta": b}) for a in (-1.0, 1.0, 1.5, 3.0) for b in (-1.0, 5.0, 50.0)],
        *[(ACON, {"p1": p, "p2": -p, "beta": b}) for p in (-20.0, 0.0, 20.0) for b in (-20.0, 20.0)],
        (SwishBeta, {"beta": 1e4}), (TanhSoft1, {"alpha": -1e4}),
    ],
)  # fmt: skip
def test_extreme_parameters_leave_everything_finite(module, params):
    values, gradients = jax.value_and_grad(
        lambda params, x: (with_parameters(module, params, x)).sum(), argnums=(0, 1)
    )(params, WIDE[0])
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((values, gradients)))


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 3.0), (-7.0, 0.0), (1.0, 2.6), (5.0, 3.0), (3.0, 100.0)])
def test_srs_stays_away_from_its_pole(alpha, beta):
    # its least value, at −β, is −αβ/(αe − β), for α = β/2 it is −β/(e − 2); α bounds it above
    beta_used = max(beta, 0.1)
    alpha_used = max(alpha, beta_used / 2)
    values = with_parameters(SRS, {"alpha": alpha, "beta": beta}, [*WIDE[0], -beta_used])
    np.testing.assert_allclose(values[-1], -alpha_used * beta_used / (alpha_used * math.e - beta_used), rtol=1e-5)
    assert values.min() >= values[-1] * (1 + 1e-5) >= -1.01 * beta_used / (math.e - 2)
    assert values.max() <= alpha_used * (1 + 1e-5)


@pytest.mark.parametrize(
    ("module", "params"), [(SRS, {"alpha": -1.0, "beta": 3.0}), (FALU, {"alpha": 3.0, "beta": 0.5})]
)
def test_a_parameter_beyond_its_bound_can_come_back(module, params):
    gradient = jax.grad(lambda params: with_parameters(module, params, [-2, 1, 3]).sum())(params)
    assert gradient["alpha"] != 0
    assert gradient["beta"] != 0


# --- by layer --------------------------------------------------------------------------------------


def parameters(name, scaling):
    """The shapes of the parameters of two layers of three neurons, by path."""

    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            activation = by_layer((name,), ALPHA, scaling)
            return activation(1)(activation(0)(x))

    leaves = jax.tree_util.tree_leaves_with_path(Two().init(jax.random.key(0), jnp.ones((1, 3))).get("params", {}))
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}


def test_learnable_parameters_are_named_by_layer():
    assert parameters("srs", UNSCALED) == {f"activation_{i}/{name}": (3,) for i in (0, 1) for name in ("alpha", "beta")}


@pytest.mark.parametrize("scaling", [UNSCALED, *SCALINGS])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_parameters_are_those_of_the_function_and_its_scaling(name, scaling):
    own = {
        path.removeprefix("activation_0/") for path in parameters(name, UNSCALED) if path.startswith("activation_0/")
    }
    assert bool(own) == (name in LEARNABLE)
    below = "" if scaling.scale == "fixed" else "base/"
    expected = {below + path: (3,) for path in own}
    if below:
        expected |= dict.fromkeys(("alpha", "beta"), () if scaling.scale == "layer" else (3,))
    assert parameters(name, scaling) == {
        f"activation_{i}/{path}": shape for i in (0, 1) for path, shape in expected.items()
    }
    assert not any(path.endswith("kernel") for path in expected)  # these are masked and decay


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"srelu"}))
def test_a_scaled_function_is_alpha_h_of_beta_x(name, scaling):
    x = jnp.array([[-2.0, 0.0, 0.5, 1.0]])
    np.testing.assert_allclose(apply(name, x, scaling), 1.3 * apply(name, 0.7 * x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", ["fixed", "layer", "neuron"])
@pytest.mark.parametrize("name", sorted(set(ACTIVATIONS) - {"srelu"}))
def test_alpha_and_beta_of_1_are_the_function_bit_for_bit(name, scale):
    np.testing.assert_array_equal(apply(name, WIDE, Scaling(1.0, 1.0, scale)), apply(name, WIDE))


def test_nothing_wraps_a_function_that_nothing_scales():
    assert by_layer(("relu",), None, UNSCALED)(0) is FIXED["relu"]


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.5), (2.0, 1.0)])
def test_one_number_alone_scales(alpha, beta):
    x = jnp.array([[-2.0, 0.0, 1.0]])
    np.testing.assert_array_equal(apply("tanh", x, Scaling(alpha, beta, "fixed")), alpha * jnp.tanh(beta * x))


def test_each_neuron_is_scaled_by_its_own_pair():
    net = Net(("relu",), scaling=Scaling(1.0, 1.0, "neuron"))
    params = {"activation_0": {"alpha": jnp.array([2.0, 3.0]), "beta": jnp.array([-1.0, 5.0])}}
    np.testing.assert_array_equal(net.apply({"params": params}, jnp.array([[-1.0, 1.0]])), [[2, 15]])


def test_layers_may_differ():
    x = jnp.array([[-1.0, 1.0]])
    names = ("relu", "tanh")
    np.testing.assert_allclose(Net(names, 0).apply({}, x), jax.nn.relu(x))
    np.testing.assert_allclose(Net(names, 1).apply({}, x), jnp.tanh(x))


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="Did you mean 'relu'"):
        by_layer(("reul",), None, UNSCALED)
    with pytest.raises(UserError, match="Did you mean 'layer'"):
        by_layer(("relu",), None, Scaling(1.0, 1.0, "layers"))


# --- in a run --------------------------------------------------------------------------------------


def run(**changes):
    config = make_config("static", "prelu", **changes)
    return make_train(config, make_tiny_problem(config)), make_hyper(config)


@pytest.mark.parametrize("scale", ["fixed", "layer", "neuron"])
def test_the_settings_reach_the_network_and_what_is_trainable_trains(scale):
    fns, hyper = run(activation_alpha=1.5, activation_beta=0.5, activation_scale=scale)
    first = fns.init(hyper, make_data())
    last = jax.jit(fns.steps)(first, hyper, make_data(), jnp.int32(3)).params["activation_0"]
    if scale == "fixed":
        assert set(last) == {"slope"}
        return
    for name, begun in (("alpha", 1.5), ("beta", 0.5)):
        np.testing.assert_array_equal(first.params["activation_0"][name], jnp.full_like(last[name], begun))
        assert (last[name] != begun).any()
    assert (last["base"]["slope"] != 0.25).any()


def test_synflow_looks_at_the_linear_network_whatever_the_functions_are(monkeypatch):
    made = []
    monkeypatch.setattr(start, "make_network", lambda *given: made.append(given[2](1)) or make_network(*given))
    fns, hyper = run(initial_topology="synflow", activation_alpha=1.5, activation_scale="neuron")
    fns.init(hyper, make_data())
    assert set(made) == {linear}
