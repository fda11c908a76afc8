"""What `benchmark.py` measures of one sparse layer: against masks, SciPy, sorting, and half the connections."""

import itertools
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from measurements import Bench, Measurement, alternate, milliseconds, timed

from sparse_jax.sparse.evolution import carried, evolve, in_use, most_grown
from sparse_jax.sparse.initial import first_links
from sparse_jax.sparse.links import Links, inputs_of_slots
from sparse_jax.sparse.products import multiply
from sparse_jax.topology.criteria import Signals
from sparse_jax.topology.methods import METHODS, Settings
from sparse_jax.topology.schedules import Course

BATCH = 128
LAYER = 4000  # inputs and outputs
DENSITIES = {0.1: "≤ 1/3.5", 0.01: "≤ 1/30", 0.001: "≤ 1/150"}
MOMENTUM, RATE = 0.9, 0.01


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
        lines.append(Measurement("sparse layer", milliseconds(a), milliseconds(b), ratio, target, detail))
    count = side * side // 4
    full, half = (
        _repeated(_sparse_layer_step(links), values, x, dy, 5)
        for links, values in (_layer((side, side), n) for n in (count, count // 2))
    )
    a, b, ratio = alternate(half, full, rounds)
    detail = f"{side} × {side}, {count // 2:,} connections; other: {count:,}"
    return [*lines, Measurement("sparse cost", milliseconds(a), milliseconds(b), ratio, "0.4 … 0.65", detail)]


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
            lines.append(Measurement("sparse break even", milliseconds(a), milliseconds(b), ratio, "–", detail))
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
    return [Measurement("sparse inference", milliseconds(a), milliseconds(b), ratio, "≤ 1/20", detail)]


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
    return [Measurement("sparse products", milliseconds(a), milliseconds(b), ratio, "≤ 1/3", detail)]


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
    return [Measurement("sparse update", milliseconds(a), milliseconds(b), ratio, "≤ 1/5", detail)]


LAYER_MEASUREMENTS = (sparse_layer, sparse_break_even, sparse_inference, sparse_scipy, sparse_update)
