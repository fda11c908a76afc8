"""Operations: how often a kernel is applied, what steps and updates take by method, the sum over a training."""

import dataclasses
import itertools
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.ad_checkpoint import checkpoint_name

from sparse_jax.activations.by_layer import by_layer
from sparse_jax.activations.scaling import UNSCALED
from sparse_jax.config import BIRTHS, DROP_SCORES, GROW_SCORES, METHODS, RATES, SCOPES, RunConfig
from sparse_jax.models.layers import Layers
from sparse_jax.models.registry import make_model
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import METHOD_SETTINGS
from sparse_jax.study.cost import Cost, forget_peak, peak_memory
from sparse_jax.study.resolve import settings_of
from sparse_jax.training.flops import Products, product, products, share_of_dense, step, update
from sparse_jax.training.network import descend, first_network, rewire
from sparse_jax.training.parts import make_rule, rates_of
from sparse_jax.training.timeline import next_event, update_due
from tests import layers, tiny
from tests.program import rows, run
from tests.test_grid import study_of

# --- how often a kernel is applied -----------------------------------------------------------------


def recorded(maker):
    """Layers that write their path and the shape of their output into the program."""

    def make(*arguments):
        layer = maker(*arguments)
        return lambda x: checkpoint_name(layer(x), "/".join((*layer.path, "kernel")))

    return make


RECORDED = Layers(*map(recorded, tiny.LAYERS[:3]), *tiny.LAYERS[3:])


def equations(jaxpr, times=1):
    """(equation, how often it is run) of a program and of those within it."""
    for equation in jaxpr.eqns:
        yield equation, times
        runs = times * (equation.params["length"] if equation.primitive.name == "scan" else 1)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)  # of a closed one
            if hasattr(inner, "eqns"):
                yield from equations(inner, runs)


def program_of(config, shape):
    """The equations of a forward pass of one example."""
    activation = by_layer(config.activation, config.all_relu_alpha, UNSCALED)
    model, x = make_model(config, 9, activation, jax.nn.sigmoid, RECORDED), jax.ShapeDtypeStruct((1, *shape), "float32")
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    return list(equations(jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, x).jaxpr))


def multiplications(equation):
    """Those of one product, 0 of anything else."""
    if equation.primitive.name not in ("dot_general", "conv_general_dilated"):
        return 0
    kernel, out = equation.invars[1].aval.shape, math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "conv_general_dilated":
        return out * math.prod(kernel[:-1])
    (_, contracted), _ = equation.params["dimension_numbers"]
    return out * math.prod(kernel[axis] for axis in contracted)


NETWORKS = [
    *((name, shape, settings) for name, (shape, settings) in tiny.MODELS.items()),
    *((name, (28, 28, 1), {}) for name in ("lenet_300_100", "lenet5", "lenet5_alford", "lenet5_safs", "lstm", "gru")),
    *((name, (32, 32, 3), {}) for name in ("vgg16", "resnet18", "resnet34", "wide_resnet", "efficientnet_b0")),
    ("efficientnet_b0", (64, 64, 3), {}),
    # sides that strides and pools do not divide, and that differ
    *((name, (19, 26, 2), {}) for name in ("lenet5", "lenet5_alford", "vgg11", "resnet18", "wide_resnet", "lstm")),
    *(("efficientnet_b0", (height, 70, 3), {}) for height in (35, 63, 65)),
    ("transformer", (8, 12, 3), {"depth": 2, "width": 0.25, "heads": 2, "patch_size": 4}),
]


@pytest.mark.parametrize(("name", "shape", "settings"), NETWORKS)
def test_kernels_are_applied_as_often_as_in_the_model(name, shape, settings):
    config, outline = settings_of(RunConfig(model=name, **settings)), OUTLINES[name]
    program, applications = program_of(config, shape), outline.applications(config, shape)
    layers_made = [(equation, runs) for equation, runs in program if equation.primitive.name == "name"]
    made = {one.params["name"]: runs * math.prod(one.outvars[0].aval.shape[:-1]) for one, runs in layers_made}
    assert made == applications
    assert len(made) == len(layers_made)  # no layer is called twice


@pytest.mark.parametrize(("name", "shape", "settings"), NETWORKS)
def test_multiplications_are_those_of_the_program(name, shape, settings):
    config, outline = settings_of(RunConfig(model=name, **settings)), OUTLINES[name]
    kernels, applications = outline.kernels(config, shape, 9), outline.applications(config, shape)
    # a depthwise convolution is a sum of shifted images there, not a product
    counted = product(kernels, applications, {kernel: 0 for kernel in kernels if "depthwise" in kernel})
    if name == "transformer":  # an attention multiplies tokens by tokens besides, twice in every block
        tokens, features = applications["block_0_query/kernel"], kernels["embedding/kernel"][1]
        counted += 2 * config.depth * 2 * tokens**2 * features
    assert counted == 2 * sum(runs * multiplications(equation) for equation, runs in program_of(config, shape))


PUBLISHED = [
    # model, settings, input, classes, multiplications of a forward pass
    ("lenet_300_100", {}, (28, 28, 1), 10, 266_200),  # 784 · 300 + 300 · 100 + 100 · 10
    ("lenet5", {}, (28, 28, 1), 10, 2_293_000),  # 24² · 25 · 20 + 8² · 25 · 20 · 50 + 800 · 500 + 5,000
    ("vgg16", {}, (32, 32, 3), 10, 313_201_664),  # 3.13e8, Li et al. 2017 (arXiv:1608.08710), table 1
    ("resnet18", {}, (32, 32, 3), 10, 555_422_720),  # 0.56 G, kuangliu/pytorch-cifar
    ("wide_resnet", {"depth": 28, "width": 10.0}, (32, 32, 3), 10, 5_243_328_768),  # 5.24 G
    ("efficientnet_b0", {}, (224, 224, 3), 1000, 385_814_752),  # 0.39 G, Tan and Le 2019, table 2
    # 28 steps of 4 · (28 + 128) · 128, and 1,280
    ("lstm", {}, (28, 28, 1), 10, 2_237_696),
]


@pytest.mark.parametrize(("name", "settings", "shape", "classes", "multiplications"), PUBLISHED)
def test_a_dense_network_has_the_published_operations(name, settings, shape, classes, multiplications):
    config, outline = settings_of(RunConfig(model=name, **settings)), OUTLINES[name]
    kernels, applications = outline.kernels(config, shape, classes), outline.applications(config, shape)
    assert product(kernels, applications, {}) == 2 * multiplications


# --- products --------------------------------------------------------------------------------------

# (shapes, applications)
LENET = (
    {"a/kernel": (784, 300), "b/kernel": (300, 100), "output/kernel": (100, 10)},
    {"a/kernel": 1, "b/kernel": 1, "output/kernel": 1},
)
CONVOLUTION = ({"conv_0/kernel": (3, 3, 3, 64), "output/kernel": (64, 10)}, {"conv_0/kernel": 1024, "output/kernel": 1})


def test_a_product_counts_the_connections_that_are_there():
    tenth = {"a/kernel": 23_520, "b/kernel": 3_000, "output/kernel": 100}
    assert product(*LENET, {}) == 532_400  # 2 · 266,200
    assert product(*LENET, tenth) == 53_240
    assert product(*LENET, {"a/kernel": 23_520}) == 109_040  # 2 · (23,520 + 30,000 + 1,000): two without a mask
    assert product(*CONVOLUTION, {}) == 3_540_224  # 2 · (1,728 · 32² + 640)
    assert product(*CONVOLUTION, {"conv_0/kernel": 172}) == 353_536  # 2 · (172 · 1,024 + 640)
    assert products(*LENET, tenth, {"a/kernel": 47_040}) == Products(53_240, 156_080, 532_400)  # 2 · 78,040


def test_a_product_grows_with_every_connection():
    for kernels, applications in (LENET, CONVOLUTION):
        for name, shape in kernels.items():
            found = [product(kernels, applications, {name: n}) for n in (0, 1, 2, math.prod(shape))]
            assert found[1] - found[0] == found[2] - found[1] == 2 * applications[name]
            assert found[0] < found[1] < found[2] < found[3] == product(kernels, applications, {})


def test_a_product_is_exact_of_counts_as_arrays_have_them():
    shapes = {"a/kernel": (3, 3, 512, 512)}
    assert product(shapes, {"a/kernel": 10**6}, {"a/kernel": np.int32(2_000_000)}) == 4 * 10**12


def test_a_layer_that_the_network_does_not_have_is_an_error():
    with pytest.raises(KeyError):
        product(*LENET, {"dense_7/kernel": 5})


# --- steps and updates by method -------------------------------------------------------------------

SPARSE, COST, DENSE = Products(10, 10, 100), Products(used=10, trained=25, dense=100), Products(100, 100, 100)
STEPS = {"snfs": 120, "top_kast": 45}  # 2 f_S + f_D, 2 f_S + what is trained; else 3 f_S
UPDATES = {
    **dict.fromkeys(("rigl", "srigl", "granet", "itop_gradient"), 120),  # 2 f_S + f_D
    **dict.fromkeys(("mest", "mest_soft"), 30),  # 3 f_S
}


@pytest.mark.parametrize("method", METHODS)
def test_a_step_and_an_update_take_the_passes_of_the_method(method):
    config, cost = tiny.make_config(method), COST if method == "top_kast" else SPARSE
    assert step(config, cost) == STEPS.get(method, 30)
    assert update(config, cost) == UPDATES.get(method, 0)
    assert step(config, DENSE) == 300  # a dense phase is that of a dense network


@pytest.mark.parametrize("method", METHODS)
def test_what_looks_at_gradients_is_what_the_rule_needs(method):
    families = {"grow_score": GROW_SCORES, "drop_score": DROP_SCORES, "scope": SCOPES, "birth": BIRTHS}
    used = {name: values for name, values in families.items() if name in METHOD_SETTINGS[method]}
    config, rates = tiny.make_config(method), dict.fromkeys(RATES, jnp.float32(0.5))
    for values in itertools.product(*used.values()):
        chosen = dataclasses.replace(config, **dict(zip(used, values, strict=True)))
        needs = make_rule(chosen, "output/kernel", rates).needs
        assert (step(chosen, COST) == 120) == ("momentum" in needs)
        assert (update(chosen, COST) > 0) == ("gradient" in needs)


def trained_for_two_updates(config, step_sees, update_sees):
    """Parameters and masks after two steps and updates; gradients of what is not trained are times what each sees."""
    rule, tx, rng = make_rule(config, layers.OUTPUT, rates_of(config)), optax.sgd(0.1), np.random.default_rng(0)

    def draw():
        return {name: jnp.asarray(rng.normal(size=shape) ** 3, jnp.float32) for name, shape in layers.SHAPES.items()}

    masks = {name: values > 0 for name, values in draw().items()}
    counts = {name: jnp.sum(mask, dtype=jnp.int32) for name, mask in masks.items()}
    network = first_network(rule, tx, draw(), masks)
    for made in (1, 2):
        key, rate, trained = jax.random.key(made), jnp.float32(0.1), network.topology.trained
        for_step, for_update = (
            {name: jnp.where(trained[name], gradient, factor * gradient) for name, gradient in draw().items()}
            for factor in (step_sees, update_sees)
        )
        network = descend(rule, tx, rate, key, network, for_step)
        place = (layers.course_at(made, 3), jnp.float32(0), counts, counts)
        network, _ = rewire(rule, tx, rate, key, *place, network, for_update, None)
    return network.params, network.topology.masks


@pytest.mark.parametrize(
    ("method", "changes", "step_is_dense", "update_takes"),
    [
        ("set", {}, False, 0),
        ("set_magnitude", {"grow_score": "gradient"}, False, 120),
        ("set_magnitude", {"birth": "gradient"}, False, 120),
        ("set_magnitude", {"drop_score": "saliency"}, False, 30),
        ("set_magnitude", {"drop_score": "magnitude_and_gradient", "gradient_weight": 1.0}, False, 30),
        ("set_magnitude", {"scope": "gradient"}, False, 30),
        ("set_magnitude", {"grow_score": "momentum", "smoothing": 0.9}, True, 0),
        ("set_magnitude", {"scope": "momentum", "smoothing": 0.9}, True, 0),
        ("top_kast", {}, False, 0),
    ],
)
def test_only_dense_passes_show_gradients_of_what_is_not_trained(method, changes, step_is_dense, update_takes):
    config = tiny.make_config(method, **changes)
    train = jax.jit(partial(trained_for_two_updates, config))
    whole, steps, updates = (jax.tree.leaves(train(*sees)) for sees in ((9.0, 9.0), (0.0, 9.0), (9.0, 0.0)))

    def differ(a, b):
        return any((one != other).any() for one, other in zip(a, b, strict=True))

    assert differ(whole, steps) == step_is_dense == (step(config, COST) == 120)
    assert differ(whole, updates) == (update_takes == 120)
    assert update(config, COST) == update_takes


# --- a training ------------------------------------------------------------------------------------


def training(config, problem, cost_at):
    """FLOPs of a training as a host loop sums them; `cost_at` says what its network costs at a step."""
    at, total = 0, 0
    while at < problem.steps:
        event = next_event(config, problem, at)
        total += (event - at) * step(config, cost_at(at))
        at = event
        if update_due(config, problem, at):
            total += update(config, cost_at(at))
            at += config.update_step == "skip"
    return config.batch_size * total


def test_rigl_takes_what_its_paper_says():
    # LeNet-300-100 at a tenth: f_S = 53,240, f_D = 532,400; 100 steps and an update, in units of f_S:
    # 100 · 3 + (2 + 10) = 312 of 101 · 30 = 3,030 if all were dense
    config, cost = settings_of(RunConfig(method="rigl", sparsity=0.9)), Products(53_240, 53_240, 532_400)
    total = 100 * step(config, cost) + update(config, cost)
    assert total == 312 * 53_240
    mean = (3 * cost.used * 100 + 2 * cost.used + cost.dense) / (100 + 1)  # Evci et al. 2020, appendix H
    assert total / 101 == pytest.approx(mean, rel=1e-15)
    assert share_of_dense(total, cost.dense, 101) == 312 / 3030


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # 64-24-12-10: 1,944 positions; 16 batches of 32 examples, 2 FLOPs a multiplication; an update after steps 5, 10
        # of half the connections: 16 steps of 3 · 972, of which two take 2 · 972 + 1,944
        (["--method=rigl", "--sparsity=0.5", "--interval=5", "--stop_fraction=0.7"],
         2 * 32 * (14 * 3 * 972 + 2 * (2 * 972 + 1944))),
        # 1,944, from step 8 on 972
        (["--method=gmp", "--sparsity=0.5", "--interval=8", "--stop_fraction=1"], 2 * 32 * 8 * 3 * (1944 + 972)),
    ],
)  # fmt: skip
def test_a_run_of_the_program_counts_its_operations(tmp_path, settings, expected):
    command = ("--dataset=digits", "--train_size=576", "--hidden_sizes=24,12", "--batch_size=32", "--epochs=1")
    assert run(*command, *settings, "--allocation=uniform", "--workdir=w", cwd=tmp_path).returncode == 0
    (row,) = rows(tmp_path / "w")
    assert int(row["training_flops"]) == expected
    assert float(row["training_flops_of_dense"]) == expected / (2 * 32 * 16 * 3 * 1944)


def test_the_time_of_a_step_is_not_that_of_compiling():
    cost = Cost(study_of().runs, None)
    for again in (False, True):
        if again:
            cost.compiles_again()
        cost.add_steps(1, 100.0)
        cost.add_steps(2, 0.5)
    assert cost.step_ms == 250.0


def test_the_peak_of_memory_can_begin_anew():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the system keeps one peak for the whole process")
    forget_peak()
    before = peak_memory()
    np.ones(2**25).sum()
    assert peak_memory() - before > 2**27
    forget_peak()
    assert peak_memory() - before < 2**27


@pytest.mark.parametrize(
    ("method", "units"),
    [  # 40 steps of 8 examples, an update after every 3; f_S = 10, f_D = 100
        ("static", 40 * 30),
        ("set", 40 * 30),
        ("rigl", 27 * 30 + 13 * 120),  # 13 updates, at 3, 6, ..., 39, each in the place of a step
        ("itop_gradient", 40 * 30 + 13 * 120),
        ("mest", 40 * 30 + 13 * 30),
        ("snfs", 40 * 120),
        ("top_kast", 40 * 45),
    ],
)
def test_a_training_is_the_sum_of_its_steps_and_updates(method, units):
    config = tiny.make_config(method)
    cost = COST if method == "top_kast" else SPARSE
    total = training(config, tiny.make_tiny_problem(config), lambda at: cost)
    assert total == 8 * units
    assert share_of_dense(total, 100, 40 * 8) == units / 12_000


def test_a_method_that_prunes_is_counted_as_it_goes():
    config = tiny.make_config("gmp")
    counts = [100 - at // tiny.INTERVAL for at in range(41)]  # one unit less after each of the 13 updates
    total = training(config, tiny.make_tiny_problem(config), lambda at: Products(counts[at], counts[at], 100))
    assert total == 8 * 3 * (3 * sum(range(88, 101)) + 87)  # 3 steps at 100, 99, ..., 88 each, the last one at 87
