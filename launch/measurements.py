"""What `benchmark.py` measures: each a function of the hardware that times two things in turn."""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_jax.config import RunConfig
from sparse_jax.data.arrays import DatasetInfo
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.normalization import fit
from sparse_jax.study.execution import executed
from sparse_jax.study.grid import Run
from sparse_jax.study.group import hyper_params
from sparse_jax.study.resolve import connections_of, settings_of
from sparse_jax.study.resolve import timed as with_times
from sparse_jax.study.sources import Lent
from sparse_jax.topology.initial import random_masks
from sparse_jax.topology.moves import drop, grow
from sparse_jax.training.cohort import make_cohort, replicate, stack
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.problem import make_problem
from sparse_jax.training.state import TrainFns
from sparse_jax.training.train import make_train


class Bench(NamedTuple):
    """What to measure on."""

    hardware: Hardware
    smoke: bool  # one short round each
    data_dir: str  # where MNIST may be found


class Measurement(NamedTuple):
    """One line of the table."""
    name: str
    ours: str
    other: str
    ratio: float | None
    target: str
    detail: str


def alternate(ours: Callable[[], float], other: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """Median seconds of both sides, and the median of their ratios round by round, ours / other."""
    pairs = [(ours(), other()) for _ in range(rounds)]
    medians = (statistics.median(side) for side in zip(*pairs, strict=True))
    return (*medians, statistics.median(a / b for a, b in pairs))


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call, until its result is there."""
    begin = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - begin


def milliseconds(seconds: float) -> str:
    """As a cell of the table."""
    return f"{1e3 * seconds:.3g} ms"


def cohort_step(bench: Bench) -> list[Measurement]:
    """A LeNet-300-100 step in a cohort of eight SET runs, against a plain dense optax loop fed from the host."""
    steps, rounds, runs = (20, 1, 8) if bench.smoke else (200, 9, 8)
    ours = _cohort(bench.hardware, RunConfig(sparsity=0.9), steps, runs)
    plain = _plain_loop(_PlainMLP(), steps)
    ours(), plain()
    a, b, ratio = alternate(ours, plain, rounds)
    return [
        Measurement(
            "cohort step", f"{1e3 * a / steps / runs:.3f} ms a run", f"{1e3 * b / steps:.3f} ms", ratio / runs,
            "≤ 0.85", f"{runs} SET runs together, LeNet-300-100, batch 128; other: one run, dense, batches from NumPy",
        )
    ]


def images(n: int = 20_000, shape: tuple[int, ...] = (28, 28, 1)):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *shape), np.uint8), rng.integers(0, 10, n, np.int32)


def compiled_cohort(hardware: Any, config: Any, images: tuple, runs: int) -> tuple:
    """The compiled functions of a cohort on random images, its hyper-parameters and data."""
    x, y = images
    config = settings_of(config)
    problem = make_problem(config, DatasetInfo("random", x.shape[1:], 10, len(x), 0), (len(x), 0, 0))
    connections = connections_of(config, problem, Lent())
    config, problem, _ = executed(with_times(config, problem, connections), problem, connections)
    hyper = hyper_params(Run("run", config, problem, *connections, Lent()))
    mesh, width = hardware.place(runs)
    fns = make_cohort(make_train(config, problem), hardware.layout, mesh)
    stacked = stack([hyper._replace(seed=np.uint32(seed)) for seed in range(runs)], width, mesh)
    return fns, stacked, replicate(Data(x, y, fit("global_zscore", x), levels_of(x)), mesh)


def advancing(hardware: Any, config: Any, images: tuple) -> tuple[TrainFns, Callable[..., float]]:
    """The compiled functions of one run, and (one of them, steps) -> the seconds that it takes to the next state."""
    fns, hyper, data = compiled_cohort(hardware, config, images, 1)
    state = fns.init(hyper, data)

    def advance(move: Callable, *count: Any) -> float:
        nonlocal state
        begin = time.perf_counter()
        state = jax.block_until_ready(move(state, hyper, data, *count))
        return time.perf_counter() - begin

    return fns, advance


def _cohort(hardware: Any, config: RunConfig, steps: int, runs: int) -> Callable[[], float]:
    """Seconds of some steps of runs that train together."""
    fns, hyper, data = compiled_cohort(hardware, config, images(), runs)
    state = fns.init(hyper, data)

    def work() -> float:
        nonlocal state
        begin = time.perf_counter()
        state = jax.block_until_ready(fns.steps(state, hyper, data, np.int32(steps)))
        return time.perf_counter() - begin

    return work


def convolution_step(bench: Bench) -> list[Measurement]:
    """A LeNet-5 step of one SET run in the loop of the compiled program, against the same as a program of its own."""
    steps, rounds = (2, 1) if bench.smoke else (40, 9)
    ours = _cohort(bench.hardware, RunConfig(model="lenet5", sparsity=0.9), steps, 1)
    plain = _plain_loop(_PlainConv(), steps)
    ours(), plain()
    a, b, ratio = alternate(ours, plain, rounds)
    return [
        Measurement(
            "convolution step", f"{1e3 * a / steps:.1f} ms", f"{1e3 * b / steps:.1f} ms", ratio, "≤ 1.1",
            "LeNet-5 20-50-500, batch 128, one SET run; other: dense, nn.Conv, one jitted step, batches from NumPy",
        )
    ]


class _PlainMLP(nn.Module):
    """LeNet-300-100 as one writes it."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for features in (300, 100):
            x = nn.relu(nn.Dense(features)(x))
        return nn.Dense(10)(x)


class _PlainConv(nn.Module):
    """LeNet-5 as one writes it."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (20, 50):
            x = nn.max_pool(nn.relu(nn.Conv(features, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(500)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


def update_share(bench: Bench) -> list[Measurement]:
    """One topology update of SET's network for CIFAR-10 against the steps of the epoch that it comes after."""
    hidden, steps, rounds = ((40, 10, 40), 2, 1) if bench.smoke else ((4000, 1000, 4000), 8, 5)
    config = RunConfig(hidden_sizes=hidden, epsilon=20.0, batch_size=100, dense_layers="output")
    fns, advance = advancing(bench.hardware, config, images(2_000, (32, 32, 3)))
    epoch = 50_000 // config.batch_size

    def update() -> float:
        return advance(fns.update)

    def training() -> float:
        return advance(fns.steps, np.int32(steps)) / steps * epoch

    update(), training()
    a, b, ratio = alternate(update, training, rounds)
    return [
        Measurement(
            "share of updates", f"{a:.2f} s", f"{b:.0f} s", ratio / (1 + ratio), "≤ 0.05",
            f"3072-{'-'.join(map(str, hidden))}-10, epsilon 20, batch 100, one run; other: {epoch} steps, from "
            f"{steps}; the share of their sum",
        )
    ]


def _plain_loop(model: nn.Module, steps: int) -> Callable[[], float]:
    """What a careful user writes first: a jitted step with donated buffers, shuffled batches from NumPy."""
    x, y = images()
    tx = optax.sgd(0.05, momentum=0.9)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, opt_state, images, labels):
        def loss_fn(params):
            logits = model.apply({"params": params}, images.astype(jnp.float32) / 255)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = model.init(jax.random.key(0), jnp.ones((1, *x.shape[1:])))["params"]
    opt_state = tx.init(params)
    rng = np.random.default_rng(0)

    def work() -> float:
        nonlocal params, opt_state
        begin = time.perf_counter()
        order = rng.permutation(len(x))
        for i in range(steps):
            batch = order[128 * (i % 150) : 128 * (i % 150) + 128]
            params, opt_state, loss = step(params, opt_state, x[batch], y[batch])
        jax.block_until_ready(loss)
        return time.perf_counter() - begin

    return work


def topology_update(bench: Bench) -> list[Measurement]:
    """Drop and grow of one 1000 × 1000 layer with a traced count, against the same by double argsort."""
    side, rounds = (100, 1) if bench.smoke else (1000, 7)
    shape = (side, side)
    keys = jax.random.split(jax.random.key(0), 3)
    count = jnp.int32(side * side // 25)
    mask = random_masks(keys[0], {"layer": shape}, {"layer": count})["layer"]
    weight = jnp.where(mask, jax.random.normal(keys[1], shape), 0)

    @jax.jit
    def ours(mask, weight, key, fraction, count):
        growth = jax.random.bits(key, shape, jnp.uint32)
        survivors = drop((mask,), jnp.abs(weight), fraction).reshape(1, -1)
        grown = grow(survivors, growth.reshape(1, -1), count[None], jnp.ones((1, mask.size), bool))
        return grown.reshape(shape)

    def rank(score):
        return jnp.argsort(jnp.argsort(score.ravel())).reshape(shape)

    @jax.jit
    def argsort(mask, weight, key, fraction, count):
        moved = jnp.floor(fraction * count).astype(jnp.int32)
        dropped = rank(jnp.where(mask, jnp.abs(weight), jnp.inf)) < moved
        survivors = mask & ~dropped
        growth = jax.random.uniform(key, shape)
        return survivors | (rank(jnp.where(survivors, jnp.inf, growth)) < moved)

    args = mask, weight, keys[2], jnp.float32(0.3), count
    assert ours(*args).sum() == argsort(*args).sum() == count
    a, b, ratio = alternate(lambda: timed(lambda: ours(*args)), lambda: timed(lambda: argsort(*args)), rounds)
    return [
        Measurement(
            "topology update", f"{1e3 * a:.1f} ms", f"{1e3 * b:.1f} ms", ratio, "≤ 1/8",
            f"{side} × {side}, {int(count):,} connections, 30 % moved; other: ranks by two argsorts",
        )
    ]


def wide_cohort(bench: Bench) -> list[Measurement]:
    """Thirty-two runs that train together on one device, against one: what lanes are worth on an accelerator."""
    steps, rounds, runs = (20, 1, 4) if bench.smoke else (500, 5, 32)
    device = bench.hardware._replace(devices=bench.hardware.devices[:1])
    together, one = (_cohort(device, RunConfig(sparsity=0.9), steps, count) for count in (runs, 1))
    together(), one()
    a, b, ratio = alternate(together, one, rounds)
    return [
        Measurement(
            "wide cohort", f"{1e3 * a / steps:.3f} ms", f"{1e3 * b / steps:.3f} ms", ratio, "≤ 4 on a GPU",
            f"a step of {runs} SET runs on one device, LeNet-300-100, batch 128; other: of one run",
        )
    ]


MEASUREMENTS = (cohort_step, wide_cohort, convolution_step, topology_update, update_share)
