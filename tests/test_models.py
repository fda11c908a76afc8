"""Networks: their kernels and activation functions as known before jax, published sizes, oracles, the seams."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparse_jax.activations.by_layer import by_layer
from sparse_jax.activations.scaling import UNSCALED
from sparse_jax.config import DTYPES, INITIALIZERS, OPTIMIZERS, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.models.convolution import conv_general_dilated, depthwise
from sparse_jax.models.layers import Layers, make_layers
from sparse_jax.models.mlp import MLP, SkipMLP
from sparse_jax.models.recurrent import Recurrent
from sparse_jax.models.registry import MODELS, make_model
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import MODEL_RECIPES
from sparse_jax.study.resolve import settings_of
from sparse_jax.topology.masks import name_of
from sparse_jax.training.optimizers import LR_SCHEDULES, make_optimizer
from tests import tiny
from tests.tiny import LAYERS

LAYOUT = ("NHWC", "HWIO", "NHWC")
LIKE_OTHERS = ("vgg16", "vgg19", "resnet34", "efficientnet_b0")  # of more layers, or costly
BY_COST = [pytest.param(name, marks=[pytest.mark.slow] * (name in LIKE_OTHERS)) for name in MODELS]
FLAT = ("mlp", "skip_mlp", "lenet_300_100", "lstm", "gru")  # that take more than images


def resolved(name, **changes):
    return settings_of(RunConfig(model=name, **changes))


def small(name, **changes):
    """The shape of an example, and the configuration of the small network of the laws."""
    shape, settings = tiny.MODELS[name]
    return shape, resolved(name, **(settings | changes))


def build(config, classes, activation=None, layers=None):
    activation = activation or by_layer(config.activation, config.all_relu_alpha, UNSCALED)
    layers = layers or make_layers(config.initializer, config.dtype)
    return make_model(config, classes, activation, jax.nn.sigmoid, layers)


def variables_of(model, shape):
    """Shapes only."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones((1, *shape)), train=False))


def initial(model, x):
    """Its first variables; compiled, because the large ones take half a minute one operation after the other."""
    return jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)


def shapes_of(params):
    return {name_of(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def kernels_of(params):
    return {name: shape for name, shape in shapes_of(params).items() if name.endswith("kernel")}


# --- what is known before jax ----------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_kernels_are_those_of_the_initialised_model_in_its_order(name):
    made = []

    def noted(maker):
        def make(layer, *arguments):
            made.append(layer)
            return maker(layer, *arguments)

        return make

    shape, config = small(name, activation=("srelu",))
    layers = Layers(*map(noted, LAYERS[:3]), *LAYERS[3:])
    params = variables_of(build(config, 9, layers=layers), shape)["params"]
    expected = OUTLINES[name].kernels(config, shape, 9)
    assert kernels_of(params) == expected
    ours = {kernel.removesuffix("/kernel") for kernel in expected}
    assert {kernel.split("/")[-1] for kernel in ours} == set(made)
    if OUTLINES[name].in_series:
        assert made == [name.removesuffix("/kernel") for name in expected]


@pytest.mark.parametrize("name", MODELS)
def test_the_activation_functions_are_as_many_as_announced_each_of_its_own_index(name):
    used = []

    def activation(i):
        used.append(i)
        return lambda x: x

    shape, config = small(name)
    variables_of(build(config, 9, activation), shape)
    announced = OUTLINES[name].activations(config)
    assert list(dict.fromkeys(used)) == list(range(announced))


@pytest.mark.parametrize("name", MODELS)
def test_a_network_may_have_one_activation_function_a_layer(name):
    shape, config = small(name)
    names = tuple(("srelu", "tanh", "prelu")[i % 3] for i in range(OUTLINES[name].activations(config)))
    params = variables_of(build(small(name, activation=names)[1], 9), shape)["params"]
    learnable = {part for leaf in shapes_of(params) for part in leaf.split("/") if part.startswith("activation_")}
    assert learnable == {f"activation_{i}" for i, function in enumerate(names) if function != "tanh"}


PUBLISHED = [
    # model, settings, input, classes, parameters
    ("mlp", {"hidden_sizes": (1000,) * 3}, (28, 28, 1), 10, 2_797_010),  # 785,000 + 2 · 1,001,000 + 10,010
    # 784 · 300 + 300 + 1084 · 100 + 100 + 1184 · 10 + 10
    ("skip_mlp", {}, (28, 28, 1), 10, 355_850),
    ("lenet_300_100", {}, (28, 28, 1), 10, 266_610),  # LeCun et al. 1998; Han et al. 2015: 267K
    ("lenet5", {}, (28, 28, 1), 10, 431_080),  # Han et al. 2015: 431K
    ("lenet5_alford", {}, (28, 28, 1), 10, 970_604),  # 520 + 25,050 + 2450 · 384 + 384 + 3,850
    ("lenet5_safs", {}, (28, 28, 1), 10, 44_426),  # 156 + 2,416 + 30,840 + 10,164 + 850
    ("lenet5_safs", {}, (32, 32, 3), 10, 62_006),  # PyTorch's CIFAR-10 tutorial
    ("vgg11", {}, (32, 32, 3), 10, 9_231_114),  # convolutions of torchvision's vgg11_bn, and one dense layer
    ("vgg16", {}, (32, 32, 3), 10, 14_728_266),  # 14,714,688 of the convolutions, 8,448 of norms, 5,130
    ("vgg19", {}, (32, 32, 3), 10, 20_040_522),  # 20,024,384 + 11,008 + 5,130
    ("resnet18", {}, (32, 32, 3), 10, 11_173_962),  # kuangliu/pytorch-cifar
    ("resnet34", {}, (32, 32, 3), 10, 21_282_122),  # kuangliu/pytorch-cifar
    ("wide_resnet", {"depth": 28, "width": 10.0}, (32, 32, 3), 10, 36_479_194),  # 36.5M, Zagoruyko 2016, table 4
    ("wide_resnet", {"depth": 16, "width": 8.0}, (32, 32, 3), 10, 10_961_370),  # 11.0M there
    ("efficientnet_b0", {}, (224, 224, 3), 1000, 5_288_548),  # 5.3M, Tan and Le 2019; torchvision
    ("lstm", {}, (28, 28, 1), 10, 81_674),  # 4 (28 + 128 + 1) 128 = 80,384, as Keras has it, + 1,290
    ("gru", {}, (28, 28, 1), 10, 61_706),  # 3 (28 + 128 + 1) 128 + 128 + 1,290
    # ViT-Tiny, 5.7M, Touvron et al. 2021
    ("transformer", {"depth": 12, "width": 3.0, "heads": 3, "patch_size": 16}, (224, 224, 3), 1000, 5_717_416),
]


@pytest.mark.parametrize(("name", "settings", "shape", "classes", "parameters"), PUBLISHED)
def test_parameters_are_as_many_as_published(name, settings, shape, classes, parameters):
    config = resolved(name, **settings)
    params = variables_of(build(config, classes), shape)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    assert kernels_of(params) == OUTLINES[name].kernels(config, shape, classes)


def test_every_model_has_a_published_size():
    assert {name for name, *_ in PUBLISHED} == set(MODELS)


@pytest.mark.parametrize("sides", [(16, 16), (32, 32), (28, 28), (20, 24)])
@pytest.mark.parametrize("name", [name for name in MODELS if name not in FLAT])
def test_images_of_many_sizes_pass(name, sides):
    config = small(name)[1]
    shape = (*sides, 3)
    OUTLINES[name].check(config, shape)
    params = variables_of(build(config, 5), shape)["params"]
    assert kernels_of(params) == OUTLINES[name].kernels(config, shape, 5)


@pytest.mark.parametrize(
    ("name", "settings", "shape", "message"),
    [
        *((name, {}, (500,), "needs images") for name in MODELS if name not in FLAT),
        ("lstm", {}, (500,), "needs sequences"),
        ("gru", {}, (500,), "needs sequences"),
        ("lenet5", {}, (15, 28, 1), "16 × 16 or larger"),
        ("lenet5_safs", {}, (8, 8, 1), "16 × 16 or larger"),
        ("lenet5_alford", {}, (3, 8, 1), "4 × 4 or larger"),
        ("transformer", {"patch_size": 5}, (28, 28, 1), "--patch_size=5 does not divide"),
        ("transformer", {"heads": 3}, (28, 28, 1), "--heads=3 does not divide the 64 features of --width=1"),
        ("wide_resnet", {"depth": 18}, (32, 32, 3), "--depth=18 is not 6 n"),
        ("wide_resnet", {"depth": 4}, (32, 32, 3), "--depth=4 is not 6 n"),
    ],
)
def test_inputs_that_a_model_does_not_take_are_refused(name, settings, shape, message):
    with pytest.raises(UserError, match=message):
        OUTLINES[name].check(resolved(name, **settings), shape)


# --- the seams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_COST)
def test_networks_that_synflow_takes_are_homogeneous_and_no_others(name):
    shape, config = small(name)
    model = build(config, 5, lambda i: lambda x: x)
    x = jax.random.uniform(jax.random.key(0), (2, *shape))
    variables = initial(model, x)
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    once, twice = apply(x), apply(2 * x)
    assert bool(jnp.allclose(2 * once, twice, rtol=1e-5, atol=1e-6 * jnp.abs(once).max())) == OUTLINES[name].homogeneous


def test_a_recipe_names_what_its_model_uses():
    for name, recipe in MODEL_RECIPES.items():
        shape, config = small(name)
        for setting, other in (("width", 0.3), ("depth", 16), ("hidden_sizes", (5,)), ("heads", 4), ("patch_size", 2)):
            used = getattr(config, setting) is not None
            assert used == (setting in recipe)
            if used and setting != "heads":
                changed = dataclasses.replace(config, **{setting: other}, heads=1)
                kernels = (OUTLINES[name].kernels(c, shape, 5) for c in (config, changed))
                assert next(kernels) != next(kernels)


@pytest.mark.parametrize("name", BY_COST)
def test_arithmetic_in_half_precision_keeps_parameters_and_nears_the_full(name):
    shape, config = small(name)
    x = jax.random.normal(jax.random.key(0), (4, *shape))
    full, half = (build(dataclasses.replace(config, dtype=dtype), 5) for dtype in DTYPES)
    variables = initial(full, x)
    assert shapes_of(variables["params"]) == shapes_of(variables_of(half, shape)["params"])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables_of(half, shape)))
    a, b = (jax.jit(lambda x, m=model: m.apply(variables, x, train=False))(x) for model in (full, half))
    assert (a.dtype, b.dtype) == (jnp.float32, jnp.bfloat16)
    assert 0 < jnp.abs(a - b).max() < 0.1 * jnp.abs(a).max()
    products = str(jax.make_jaxpr(lambda x: half.apply(variables, x, train=False))(x))
    lines = [line for line in products.splitlines() if "dot_general" in line or "conv_general" in line]
    wide = [line for line in lines if "bf16[" not in line.split("=")[0]]
    assert len(wide) == (config.depth if name == "transformer" else 0) < len(lines)  # an attention mixes in float32


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initialisers_have_their_variance(name):
    kernel = MLP((600,), 5, lambda i: lambda x: x, make_layers(name, "float32"), 0.0).init(
        jax.random.key(0), jnp.ones((1, 200)), train=False
    )["params"]["dense_0"]["kernel"]
    variance = {"glorot": 2 / 800, "he": 2 / 200, "lecun": 1 / 200}[name.split("_")[0]]
    np.testing.assert_allclose(kernel.var(), variance, rtol=0.03)
    edge = math.sqrt(3 * variance)  # of a uniform distribution
    assert (jnp.abs(kernel).max() < 1.0001 * edge) == name.endswith("uniform")


# --- by hand, and against oracles ------------------------------------------------------------------


def test_the_mlp_by_hand():
    model = MLP((2,), 1, lambda i: jnp.tanh, LAYERS, 0.0)
    params = {
        "dense_0": {"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "bias": jnp.array([0.5, 0.0])},
        "output": {"kernel": jnp.array([[3.0], [-1.0]]), "bias": jnp.array([0.25])},
    }
    out = model.apply({"params": params}, jnp.array([[0.1, 0.2]]), train=False)
    np.testing.assert_allclose(out, [[3 * np.tanh(0.6) - np.tanh(0.4) + 0.25]], rtol=1e-6)


def test_every_layer_of_the_skip_mlp_sees_all_before_it_by_hand():
    model = SkipMLP((1, 1), 1, lambda i: (jnp.tanh, jnp.abs)[i], LAYERS, 0.0)
    kernels = {"dense_0": [2.0, 0.0], "dense_1": [0.0, -3.0, 1.0], "output": [1.0, 0.0, 4.0, -1.0]}
    params = {name: {"kernel": jnp.array(k)[:, None], "bias": jnp.zeros(1)} for name, k in kernels.items()}
    out = model.apply({"params": params}, jnp.array([[0.1, 0.2]]), train=False)
    first = np.tanh(0.2)
    np.testing.assert_allclose(out, [[0.1 + 4 * first - abs(first - 0.6)]], rtol=1e-6)


def test_dropout_is_for_training_and_between_the_layers():
    passing = LAYERS._replace(dense=lambda name, features, bias: lambda x: x)
    model = MLP((1000,), 1000, lambda i: lambda x: jnp.ones_like(x), passing, 0.3)
    x = jnp.ones((1, 1000))
    np.testing.assert_array_equal(model.apply({}, x, train=False), x)
    dropped = model.apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(jnp.unique(dropped), [0, 1 / 0.7], rtol=1e-6)
    assert 0.25 < (dropped == 0).mean() < 0.35


@pytest.mark.parametrize("name", BY_COST)
def test_dropout_goes_by_its_key_in_training_and_needs_none_in_evaluation(name):
    shape, config = small(name, dropout=0.5, activation=("linear",))
    model = build(config, 5)
    x = jax.random.normal(jax.random.key(0), (4, *shape))
    variables = initial(model, x)
    state = [name for name in variables if name != "params"]

    @jax.jit
    def train(seed):
        return model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}, mutable=state)[0]

    assert (train(0) == train(0)).all()
    assert (train(0) != train(1)).any()
    jax.eval_shape(lambda x: model.apply(variables, x, train=False), x)  # without a key


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def with_random_biases(params):
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)


def run_recurrent(model):
    x = jax.random.normal(jax.random.key(0), (3, 4, 2, 3))
    params = with_random_biases(initial(model, x)["params"])
    out = model.apply({"params": params}, x, train=False)
    return np.asarray(x).reshape(3, 4, 6), jax.tree.map(np.asarray, params), out


def test_the_lstm_is_that_of_its_equations():
    x, params, out = run_recurrent(Recurrent("lstm", (5, 4), jax.nn.sigmoid, 2, lambda i: jnp.tanh, LAYERS, 0.0))
    for layer, units in ((params["lstm_0"], 5), (params["lstm_1"], 4)):
        hidden = cell = np.zeros((3, units))
        outputs = []
        for t in range(x.shape[1]):
            i, f, g, o = (
                x[:, t] @ layer[f"input_{k}"]["kernel"]
                + layer[f"input_{k}"]["bias"]
                + hidden @ layer[f"recurrent_{k}"]["kernel"]
                for k in "ifgo"
            )
            cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            outputs.append(hidden)
        x = np.stack(outputs, axis=1)
    expected = x[:, -1] @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_the_gru_is_that_of_its_equations():
    x, params, out = run_recurrent(Recurrent("gru", (5,), jax.nn.sigmoid, 2, lambda i: jnp.tanh, LAYERS, 0.0))
    layer, hidden = params["gru_0"], np.zeros((3, 5))
    for t in range(x.shape[1]):
        r, z, n = (x[:, t] @ layer[f"input_{k}"]["kernel"] + layer[f"input_{k}"]["bias"] for k in "rzn")
        reset, update = (sigmoid(a + hidden @ layer[f"recurrent_{k}"]["kernel"]) for a, k in ((r, "r"), (z, "z")))
        again = layer["recurrent_n"]
        new = np.tanh(n + reset * (hidden @ again["kernel"] + again["bias"]))
        hidden = (1 - update) * new + update * hidden
    expected = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_the_resnet_is_that_of_its_equations():
    shape, config = small("resnet18")
    model, x = build(config, 3), jax.random.normal(jax.random.key(0), (4, *shape))
    variables = initial(model, x)
    params = variables["params"]
    out, _ = model.apply(variables, x, train=True, mutable=["batch_stats"])

    def conv(name, x, stride):
        kernel = params[name]["kernel"]
        y = np.asarray(lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT))
        return (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-5)

    x = np.maximum(conv("conv_0", x, 1), 0)
    for stage in range(4):
        for block in range(2):
            name, stride = f"block_{stage}_{block}", 2 if stage and not block else 1
            y = conv(f"{name}_conv_1", np.maximum(conv(f"{name}_conv_0", x, stride), 0), 1)
            x = np.maximum(y + (conv(f"{name}_shortcut", x, 2) if stride == 2 else x), 0)
    np.testing.assert_allclose(out, x.mean((1, 2)) @ params["output"]["kernel"], rtol=2e-3, atol=2e-3)


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(function, x, kernel, weights):
    """What a function of x and a kernel gives, and the gradients of its weighted sum by both."""
    gradients = jax.grad(lambda x, kernel: (weights * function(x, kernel)).sum(), argnums=(0, 1))
    return function(x, kernel), gradients(x, kernel)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 0), (2, 1)]])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 5)])
def test_gradients_of_the_convolution_are_those_of_lax(stride, padding, size):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (2, 7, 8, 3)), jax.random.normal(keys[1], (*size, 3, 4))
    def theirs(x, kernel):
        return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)

    def ours(x, kernel):
        return conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)

    weights = jax.random.normal(keys[2], jax.eval_shape(theirs, x, kernel).shape)
    (y, a), (z, b) = (with_gradients(f, x, kernel, weights) for f in (ours, theirs))
    np.testing.assert_array_equal(y, z)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), a, b)


@pytest.mark.parametrize("option", [{"rhs_dilation": (2, 2)}, {"lhs_dilation": (1, 2)}, {"feature_group_count": 3}])
def test_what_the_convolution_does_not_offer_is_refused(option):
    with pytest.raises(ValueError, match="neither dilations nor groups"):
        conv_general_dilated(jnp.ones((1, 4, 4, 3)), jnp.ones((2, 2, 3, 3)), (1, 1), "SAME", **option)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_depthwise_convolution_and_its_gradients_are_those_of_lax(stride, size):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (2, 7, 8, 3)), jax.random.normal(keys[1], (size, size, 1, 3))

    def theirs(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT, feature_group_count=3
        )

    def ours(x, kernel):
        return depthwise(x, kernel, stride)

    weights = jax.random.normal(keys[2], jax.eval_shape(theirs, x, kernel).shape)
    (y, a), (z, b) = (with_gradients(f, x, kernel, weights) for f in (ours, theirs))
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), a, b)


def test_gradients_of_the_convolution_have_derivatives_as_grasp_needs_them():
    x, kernel = jnp.ones((1, 4, 4, 2)), jax.random.normal(jax.random.key(0), (3, 3, 2, 2))

    def loss(conv, kernel):
        return (conv(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT) ** 3).sum()

    def product(conv):
        return jax.jvp(jax.grad(lambda kernel: loss(conv, kernel)), (kernel,), (kernel,))[1]

    np.testing.assert_allclose(product(conv_general_dilated), product(lax.conv_general_dilated), rtol=1e-4)


def test_batch_statistics_are_those_of_the_batches():
    shape, config = small("vgg11")
    model = build(config, 3)
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (16, *shape))
    variables = initial(model, x)
    _, changed = model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(2)}, mutable=["batch_stats"])
    kernel, bias = variables["params"]["conv_0"]["kernel"], variables["params"]["conv_0"]["bias"]
    y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT) + bias[None, None, None]
    statistics = changed["batch_stats"]["norm_0"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * y.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * y.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_kernels_decay(optimizer):
    params = {
        "dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "activation_0": {"t_left": jnp.ones(2)},
    }
    tx = make_optimizer(RunConfig(optimizer=optimizer), jnp.float32(0.1), jnp.float32(0.01))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert (updates["dense_0"]["kernel"] < 0).all()
    assert (updates["dense_0"]["bias"] == 0).all()
    assert (updates["activation_0"]["t_left"] == 0).all()


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, (1 + 2**-0.5) / 2, 1 / 2, (1 - 2**-0.5) / 2]),  # at 0, 1/4, 1/2 and 3/4
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("step", [1, 1, 0.1, 0.01]),
    ],
)
def test_learning_rates(schedule, factors):
    factor = LR_SCHEDULES[schedule](RunConfig(), 40)
    np.testing.assert_allclose([factor(jnp.int32(step)) for step in (0, 10, 20, 30)], factors, rtol=1e-5)


def test_two_decays_on_one_step_are_two_decays():
    factor = LR_SCHEDULES["step"](RunConfig(lr_decay_at=(0.5, 0.51), lr_decay_factor=0.5), 4)
    np.testing.assert_allclose([factor(jnp.int32(step)) for step in (1, 2)], [1, 0.25])
