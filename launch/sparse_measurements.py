"""What `benchmark.py` measures of sparse execution: against masks, SciPy, PyTorch, and half the connections."""

import dataclasses
import importlib.util
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from measurements import Bench, Measurement, advancing, alternate, images, timed

from sparse_jax.config import RunConfig
from sparse_jax.sparse.evolution import carried, evolve, in_use, most_grown
from sparse_jax.sparse.initial import first_links
from sparse_jax.sparse.links import Links, inputs_of_slots
from sparse_jax.sparse.products import multiply
from sparse_jax.topology.criteria import Signals
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.schedules import Course

BATCH = 128
MNIST, CIFAR = (28, 28, 1), (32, 32, 3)
# name -> (settings, shape of an example, steps a round of the masked one, target)
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, ...], int, str]] = {
    "784-1000-1000-1000-10": ({"hidden_sizes": (1000, 1000, 1000)}, MNIST, 20, "≤ 1/7"),
    "3072-4000-1000-4000-10": ({"hidden_sizes": (4000, 1000, 4000)}, CIFAR, 4, "≤ 1/10"),
    "LeNet-300-100": ({"model": "lenet_300_100"}, MNIST, 200, "≤ 1/2.5"),
}
LAYER = 4000  # inputs and outputs
DENSITIES = {0.1: "≤ 1/3.5", 0.01: "≤ 1/30", 0.001: "≤ 1/150"}
MOMENTUM, RATE = 0.9, 0.01


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _steps(bench: Bench, config: RunConfig, shape: tuple[int, ...], steps: int) -> tuple[Callable[[], float], Callable]:
    """Seconds of a training step, and of a topology update, of one run."""
    fns, advance = advancing(bench.hardware, config, images(5_000, shape))

    def step() -> float:
        return advance(fns.steps, np.int32(steps)) / steps

    step()
    return step, lambda: advance(fns.update)


def sparse_step(bench: Bench) -> list[Measurement]:
    """A training step of SET's networks at epsilon 20, executed sparsely and masked."""
    lines = []
    for name, (settings, shape, steps, target) in NETWORKS.items():
        steps, rounds = (1, 1) if bench.smoke else (steps, 9)
        config = RunConfig(epsilon=20.0, **settings)
        ours, _ = _steps(bench, dataclasses.replace(config, execution="sparse"), shape, 5 * steps)
        other, _ = _steps(bench, config, shape, steps)
        a, b, ratio = alternate(ours, other, rounds)
        detail = f"{name}, SET, epsilon 20, batch {config.batch_size}, momentum, one run; other: masked"
        lines.append(Measurement("sparse step", _milliseconds(a), _milliseconds(b), ratio, target, detail))
    return lines


def sparse_epoch(bench: Bench) -> list[Measurement]:
    """An epoch of the study of activation functions on CIFAR-10, its topology update included."""
    hidden, epoch = ((40, 10, 40), 2) if bench.smoke else ((4000, 1000, 4000), 500)
    config = RunConfig(
        hidden_sizes=hidden, epsilon=20.0, batch_size=100, activation=("srelu",), dropout=0.3, dense_layers="output",
        augmentation="dubowski", normalization="global_zscore",
    )  # fmt: skip
    rounds = 1 if bench.smoke else 3
    sides = []
    for execution, steps in (("sparse", min(epoch, 100)), ("masked", min(epoch, 20))):
        step, update = _steps(bench, dataclasses.replace(config, execution=execution), CIFAR, steps)
        update()
        sides.append(lambda step=step, update=update: epoch * step() + update())
    a, b, ratio = alternate(*sides, rounds)
    detail = "3072-4000-1000-4000-10, epsilon 20, SReLU, dropout, augmentation, 50,000 images, batch 100; by some steps"
    return [Measurement("sparse epoch", f"{a:.1f} s", f"{b:.0f} s", ratio, "≤ 1/8", detail)]


def _layer(shape: tuple[int, int], count: int) -> tuple[Links, jax.Array]:
    """Random connections and weights."""
    links = jax.jit(partial(first_links, "random", shape=shape, count=jnp.int32(count), slots=count))(jax.random.key(0))
    return links, jax.random.normal(jax.random.key(1), (count,))


def _dense_of(links: Links, values: jax.Array) -> jax.Array:
    """The mask and the masked kernel, [I, O]."""
    at = inputs_of_slots(links), links.outputs
    return jnp.zeros(links.shape, bool).at[at].set(True), jnp.zeros(links.shape).at[at].set(values)


def _sparse_layer_step(links: Links) -> Callable:
    """A step of momentum on a layer, that also gives the gradient by its inputs."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(values, momentum, x, dy):
        _, pull = jax.vjp(lambda values, x: multiply(values, links, x), values, x)
        gradient, dx = pull(dy)
        momentum = MOMENTUM * momentum + gradient
        return values - RATE * momentum, momentum, dx

    return step


def _masked_layer_step(mask: jax.Array) -> Callable:
    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights, momentum, x, dy):
        _, pull = jax.vjp(lambda weights, x: x @ weights, weights, x)
        gradient, dx = pull(dy)
        momentum = jnp.where(mask, MOMENTUM * momentum + gradient, 0)
        return jnp.where(mask, weights - RATE * momentum, 0), momentum, dx

    return step


def _repeated(step: Callable, weights: jax.Array, x: jax.Array, dy: jax.Array, times: int) -> Callable[[], float]:
    """Seconds of a step."""
    state = weights, jnp.zeros_like(weights)

    def work() -> float:
        nonlocal state
        begin = time.perf_counter()
        for _ in range(times):
            *state, dx = step(*state, x, dy)
        jax.block_until_ready((state, dx))
        return (time.perf_counter() - begin) / times

    work()
    return work


def sparse_layer(bench: Bench) -> list[Measurement]:
    """A training step of one layer by itself at three densities, and its cost at half the connections."""
    side, rounds = (100, 1) if bench.smoke else (LAYER, 9)
    x, dy = (jax.random.normal(jax.random.key(seed), (side, BATCH)) for seed in (2, 3))
    lines = []
    for density, target in DENSITIES.items():
        links, values = _layer((side, side), round(density * side * side))
        mask, weights = _dense_of(links, values)
        times = 1 if bench.smoke else max(10, round(1 / density))
        ours = _repeated(_sparse_layer_step(links), values, x, dy, times)
        other = _repeated(_masked_layer_step(mask), weights, x.T, dy.T, 1 if bench.smoke else 5)
        a, b, ratio = alternate(ours, other, rounds)
        detail = f"{side} × {side} at sparsity {1 - density:g}, batch {BATCH}, products and momentum; other: masked"
        lines.append(Measurement("sparse layer", _milliseconds(a), _milliseconds(b), ratio, target, detail))
    count = side * side // 4
    full, half = (
        _repeated(_sparse_layer_step(links), values, x, dy, 5)
        for links, values in (_layer((side, side), n) for n in (count, count // 2))
    )
    a, b, ratio = alternate(half, full, rounds)
    detail = f"{side} × {side}, {count // 2:,} connections; other: {count:,}"
    return [*lines, Measurement("sparse cost", _milliseconds(a), _milliseconds(b), ratio, "0.4 … 0.65", detail)]


def sparse_break_even(bench: Bench) -> list[Measurement]:
    """Layers of several sizes at densities up to where masks are faster: what `--execution=auto` goes by."""
    sides, rounds = ((30,), 1) if bench.smoke else ((64, 100, 300, 1000, 4000), 5)
    lines = []
    for side in sides:
        x, dy = (jax.random.normal(jax.random.key(seed), (side, BATCH)) for seed in (2, 3))
        for density in (0.1, 0.3, 0.5, 0.7):
            links, values = _layer((side, side), round(density * side * side))
            mask, weights = _dense_of(links, values)
            times = 1 if bench.smoke else max(2, 10**6 // side**2)
            ours = _repeated(_sparse_layer_step(links), values, x, dy, times)
            other = _repeated(_masked_layer_step(mask), weights, x.T, dy.T, times)
            a, b, ratio = alternate(ours, other, rounds)
            detail = f"{side} × {side} at density {density:g}, batch {BATCH}, products and momentum; other: masked"
            lines.append(Measurement("sparse break even", _milliseconds(a), _milliseconds(b), ratio, "–", detail))
    return lines


def sparse_inference(bench: Bench) -> list[Measurement]:
    """One example through one layer, against the dense product."""
    side, rounds, times = (100, 1, 1) if bench.smoke else (LAYER, 15, 100)
    links, values = _layer((side, side), side * side // 100)
    _, weights = _dense_of(links, values)
    x = jax.random.normal(jax.random.key(2), (side, 1))
    sparse, dense = jax.jit(lambda x: multiply(values, links, x)), jax.jit(lambda weights, x: x @ weights)

    def repeated(work):
        def seconds() -> float:
            return timed(lambda: [work() for _ in range(times)]) / times

        seconds()
        return seconds

    a, b, ratio = alternate(repeated(lambda: sparse(x)), repeated(lambda: dense(weights, x.T)), rounds)
    detail = f"{side} × {side} at sparsity 0.99, batch 1; other: dense"
    return [Measurement("sparse inference", _milliseconds(a), _milliseconds(b), ratio, "≤ 1/20", detail)]


def sparse_scipy(bench: Bench) -> list[Measurement]:
    """The three products of one layer against SciPy's CSR: forward, by inputs, by the weights on the connections."""
    side, rounds = (100, 1) if bench.smoke else (LAYER, 9)
    links, values = _layer((side, side), side * side // 100)
    x, dy = (jax.random.normal(jax.random.key(seed), (side, BATCH)) for seed in (2, 3))

    @jax.jit
    def products(values, x, dy):
        y, pull = jax.vjp(lambda values, x: multiply(values, links, x), values, x)
        return y, *pull(dy)

    inputs, outputs, weights, x_host, dy_host = map(np.asarray, (inputs_of_slots(links), links.outputs, values, x, dy))
    by_input = scipy.sparse.csr_matrix((weights, (inputs, outputs)), links.shape)
    by_output = by_input.T.tocsr()

    def ours() -> float:
        return timed(lambda: products(values, x, dy))

    def other() -> float:
        begin = time.perf_counter()
        y, dx = by_output @ x_host, by_input @ dy_host
        gradient = np.einsum("cb,cb->c", x_host[inputs], dy_host[outputs])
        assert y.shape == dx.shape
        assert gradient.shape == weights.shape
        return time.perf_counter() - begin

    for found, expected in zip(products(values, x, dy), (by_output @ x_host, None, by_input @ dy_host), strict=True):
        assert expected is None or np.allclose(found, expected, rtol=1e-3, atol=1e-3)
    ours(), other()
    a, b, ratio = alternate(ours, other, rounds)
    detail = f"{side} × {side} at sparsity 0.99, batch {BATCH}, forward and both gradients; other: scipy.sparse CSR"
    return [Measurement("sparse products", _milliseconds(a), _milliseconds(b), ratio, "≤ 1/3", detail)]


def _sorted_evolution(shape: tuple[int, int], count: int) -> Callable:
    """An update of a layer by sorting: the smallest by argsort, all positions by lexicographic sorts."""

    def update(key, links, weight):
        dropped = jnp.argsort(jnp.argsort(jnp.abs(weight))) < jnp.floor(0.3 * count).astype(jnp.int32)
        inputs, outputs = inputs_of_slots(links), links.outputs
        slot, new = jnp.arange(count, dtype=jnp.int32), dropped

        def redraw(state):
            key, inputs, outputs, slot, new, wrong = state
            key, of_input, of_output = jax.random.split(key, 3)
            inputs = jnp.where(wrong, jax.random.randint(of_input, (count,), 0, shape[0], jnp.int32), inputs)
            outputs = jnp.where(wrong, jax.random.randint(of_output, (count,), 0, shape[1], jnp.int32), outputs)
            order = jnp.lexsort((new, outputs, inputs))  # the last key counts most
            inputs, outputs, slot, new = (side[order] for side in (inputs, outputs, slot, new))
            twice = (inputs[1:] == inputs[:-1]) & (outputs[1:] == outputs[:-1])
            return key, inputs, outputs, slot, new, jnp.concatenate([jnp.zeros(1, bool), twice])

        begin = redraw((key, inputs, outputs, slot, new, dropped))
        _, inputs, outputs, slot, new, _ = jax.lax.while_loop(lambda state: jnp.any(state[-1]), redraw, begin)
        by_output = jnp.lexsort((inputs, outputs))
        starts = [
            jnp.searchsorted(side, jnp.arange(n + 1, dtype=jnp.int32)).astype(jnp.int32)
            for side, n in ((inputs, shape[0]), (outputs[by_output], shape[1]))
        ]
        moved = Links(outputs, starts[0], inputs[by_output], starts[1], by_output.astype(jnp.int32))
        return moved, jnp.where(new, 0, weight[slot])

    return update


def sparse_update(bench: Bench) -> list[Measurement]:
    """The topology update of SET's network for MNIST on its connections, against the same by sorting."""
    widths, rounds = ((20, 30, 20), 1) if bench.smoke else ((784, 1000, 1000, 1000), 9)
    rule = METHODS["set_magnitude"](Settings("output/kernel", {"drop_fraction": jnp.float32(0.3)}))
    shapes = list(itertools.pairwise(widths))
    layers = [(shape, 20 * sum(shape) if not bench.smoke else 100) for shape in shapes]
    networks = [_layer(shape, count) for shape, count in layers]
    course = Course(jnp.float32(0), jnp.float32(0), jnp.int32(1))

    def on_indices(shape, count):
        def update(key, links, weight):
            signals = Signals(weight, in_use(links), None, None, None, None, rule.rates)
            counts, most = (jnp.int32(count),) * 2, most_grown(rule, count, 0.3)
            move = evolve(rule, key, course, *counts, links, signals, None, shape, count, most)
            return move.links, carried(move.sources, weight)

        return update

    def whole(make):
        updates = [make(shape, count) for shape, count in layers]

        @jax.jit
        def update(key, networks):
            return [of_layer(key, *network) for of_layer, network in zip(updates, networks, strict=True)]

        return lambda: timed(lambda: update(jax.random.key(2), networks))

    ours, other = whole(on_indices), whole(_sorted_evolution)
    ours(), other()
    a, b, ratio = alternate(ours, other, rounds)
    detail = f"{'-'.join(map(str, widths))}, epsilon 20, drop 30 %, grow at random; other: by argsort and lexsort"
    return [Measurement("sparse update", _milliseconds(a), _milliseconds(b), ratio, "≤ 1/5", detail)]


def sparse_peer(bench: Bench) -> list[Measurement]:
    """A training step of SET's network for MNIST, against a masked loop in PyTorch (extra `peer`)."""
    name = "784-1000-1000-1000-10"
    detail = f"{name}, SET, epsilon 20, batch {BATCH}, momentum; other: PyTorch, masked"
    if importlib.util.find_spec("torch") is None:
        return [Measurement("sparse peer", "–", "–", None, "≤ 1/9", f"{detail}: pip install -e '.[peer]' brings it")]
    import torch

    settings, shape, steps, _ = NETWORKS[name]
    steps, rounds = (1, 1) if bench.smoke else (steps, 9)
    ours, _ = _steps(bench, RunConfig(epsilon=20.0, execution="sparse", **settings), shape, 5 * steps)
    torch.manual_seed(0)
    widths = [np.prod(shape), *settings["hidden_sizes"], 10]
    layers = [torch.nn.Linear(int(i), int(o)) for i, o in itertools.pairwise(widths)]
    masks = [torch.rand(layer.weight.shape) < 20 * sum(layer.weight.shape) / layer.weight.numel() for layer in layers]
    model = torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.ReLU())))[:-1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=MOMENTUM)
    x, y = images(5_000, shape)
    x, y = torch.from_numpy(x.reshape(len(x), -1)), torch.from_numpy(y).long()

    def other() -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            chosen = torch.randint(len(x), (BATCH,))
            loss = torch.nn.functional.cross_entropy(model(x[chosen].float() / 255), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for layer, mask in zip(layers, masks, strict=True):
                    layer.weight *= mask
        return (time.perf_counter() - begin) / steps

    other()
    a, b, ratio = alternate(ours, other, rounds)
    return [Measurement("sparse peer", _milliseconds(a), _milliseconds(b), ratio, "≤ 1/9", detail)]


SPARSE_MEASUREMENTS = (
    sparse_step, sparse_epoch, sparse_layer, sparse_break_even, sparse_inference, sparse_scipy, sparse_update,
    sparse_peer,
)  # fmt: skip
