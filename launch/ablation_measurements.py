"""What `benchmark.py` measures of `ablate.py`: many networks, orders and fractions, against a loop over them."""

import jax
import jax.numpy as jnp
import numpy as np
from measurements import Bench, Measurement, alternate, timed

from sparse_jax.config import AblationConfig, RunConfig
from sparse_jax.data.arrays import DatasetInfo
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.normalization import fit
from sparse_jax.study.ablate import Experiment, examined
from sparse_jax.study.experiments import conduct, make_lay_out
from sparse_jax.study.resolve import settings_of
from sparse_jax.study.subjects import Subject, TrainedCohort
from sparse_jax.topology.masks import apply_masks
from sparse_jax.training.parts import initial_variables, make_parts
from sparse_jax.training.problem import make_problem
from sparse_jax.training.state import HyperParams

ORDERS = ("smallest", "largest", "random", "positive", "gradient", "activity")
FRACTIONS = tuple(tenths / 10 for tenths in range(11))
RUNS = 8
DENSITY = 0.1


def ablation(bench: Bench) -> list[Measurement]:
    """Eight networks, six orders, eleven fractions, on networks for digits and for MNIST."""
    sizes = {"digits, 64-200-100-10": ((8, 8, 1), (200, 100), 1437, 360)}
    sizes["MNIST, 784-300-100-10"] = ((28, 28, 1), (300, 100), *((1000, 500) if bench.smoke else (10_000, 10_000)))
    return [_against_loop(bench, name, *size) for name, size in sizes.items()]


def _against_loop(
    bench: Bench, name: str, shape: tuple[int, ...], hidden: tuple[int, ...], train: int, test: int
) -> Measurement:
    cohort, subjects = _networks(shape, hidden, train, test)
    config = AblationConfig(ORDERS, (), FRACTIONS)
    chunk = make_lay_out(cohort, tuple(cohort.problem.kernels), bench.hardware, config)(subjects)
    experiments = [Experiment("order", order, "layer", 0) for order in ORDERS]
    loop, rounds = _make_loop(cohort, subjects), 7 if test < 1000 else 2

    def ours() -> list:
        return [records for _, records in conduct(chunk, experiments)]

    mine = np.array([[[p["accuracy"] for p in one["points"]] for one in of_runs] for of_runs in ours()])
    known = [i for i, order in enumerate(ORDERS) if order not in ("random", "positive")]
    if not np.allclose(mine[known], np.array(loop())[known], atol=2 / test):
        raise AssertionError("the two sides differ")
    a, b, ratio = alternate(lambda: timed(ours), lambda: timed(loop), 1 if bench.smoke else rounds)
    evaluations = RUNS * len(ORDERS) * len(FRACTIONS)
    detail = f"{name}, {RUNS} runs × {len(ORDERS)} orders × {len(FRACTIONS)} fractions; other: a loop over jitted calls"
    target = "≤ 0.33" if name.startswith("digits") else "≤ 1"
    return Measurement(
        "ablation", f"{1e3 * a / evaluations:.2f} ms", f"{1e3 * b / evaluations:.2f} ms", ratio, target, detail
    )


def _networks(
    shape: tuple[int, ...], hidden: tuple[int, ...], train: int, test: int
) -> tuple[TrainedCohort, list[Subject]]:
    """Untrained networks with random masks, on random examples."""
    rng = np.random.default_rng(0)
    x, y = rng.random((train + test, *shape), np.float32), rng.integers(0, 10, train + test, np.int32)
    config = examined(settings_of(RunConfig(hidden_sizes=hidden, sparsity=1 - DENSITY)))
    problem = make_problem(config, DatasetInfo("random", shape, 10, train, test), (train, 0, test))
    data = Data(x, y, fit("global_zscore", x[:train]), levels_of(x[:train]))
    parts, subjects = make_parts(config, problem), []
    for seed in range(RUNS):
        params, _ = initial_variables(parts, jax.random.key(seed), data, {})
        masks = {layer: rng.random(size) < DENSITY for layer, size in problem.kernels.items()}
        hyper = HyperParams(
            seed=np.uint32(seed), weights_seed=np.uint32(seed), start={}, counts={}, rates={}, masks=masks,
            network=jax.tree.map(np.asarray, {"params": apply_masks(params, masks), "model_state": {}}),
            learning_rate=np.float32(0), weight_decay=np.float32(0),
        )  # fmt: skip
        subjects.append(Subject(None, hyper, False))
    return TrainedCohort(config, problem, (), data, (train, 0, test)), subjects


_SCORES = {
    "smallest": lambda w, g, i, key: jnp.abs(w),
    "largest": lambda w, g, i, key: -jnp.abs(w),
    "random": lambda w, g, i, key: jax.random.uniform(key, w.shape),
    "positive": lambda w, g, i, key: jax.random.uniform(key, w.shape),
    "gradient": lambda w, g, i, key: jnp.abs(w * g),
    "activity": lambda w, g, i, key: jnp.abs(w) * i[:, None],
}


def _forward(kernels, biases, x):
    """Logits, and the mean inputs of every layer."""
    inputs = []
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        inputs.append(jnp.abs(x).mean(0))
        x = x @ kernel + bias
        x = jax.nn.relu(x) if i + 1 < len(kernels) else x
    return x, inputs


def _loss(kernels, biases, x, y):
    logits, inputs = _forward(kernels, biases, x)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean(), inputs


_signals = jax.jit(jax.grad(_loss, has_aux=True))


@jax.jit
def _ranks(scores, candidates):
    order = [jnp.lexsort((s.ravel(), ~c.ravel())) for s, c in zip(scores, candidates, strict=True)]
    return [jnp.argsort(o).reshape(s.shape) for o, s in zip(order, scores, strict=True)]


@jax.jit
def _accuracy(kernels, biases, ranked, counts, x, y):
    left = [jnp.where(r < n, 0, w) for w, r, n in zip(kernels, ranked, counts, strict=True)]
    return jnp.mean(jnp.argmax(_forward(left, biases, x)[0], -1) == y)


def _make_loop(cohort: TrainedCohort, subjects: list[Subject]):
    """() -> accuracies [order][run][fraction], as one writes it: three jitted functions in a loop.

    Networks are on the device, and gradients and inputs are found once a network, where an order needs them.
    """
    data, (train, _, test) = cohort.data, cohort.sizes
    inputs = ((data.x - data.normalization.shift) * data.normalization.scale).reshape(train + test, -1)
    x, y, seen, labels = jax.device_put((inputs[train:], data.y[train:], inputs[:1000], data.y[:1000]))
    names = [name.removesuffix("/kernel") for name in cohort.problem.kernels]

    def of_run(subject: Subject):
        params, masks = subject.hyper.network["params"], [subject.hyper.masks[f"{name}/kernel"] for name in names]
        kernels, biases = jax.device_put(tuple([params[name][leaf] for name in names] for leaf in ("kernel", "bias")))
        found, key = _signals(kernels, biases, seen, labels), jax.random.key(int(subject.hyper.seed))
        curves = []
        for order in ORDERS:
            scored = [_SCORES[order](w, g, i, key) for w, g, i in zip(kernels, *found, strict=True)]
            hosts = zip(masks, (params[name]["kernel"] for name in names), strict=True)
            may = [m & (w > 0) if order == "positive" else m for m, w in hosts]
            ranked, counts = _ranks(scored, may), [int(m.sum()) for m in may]
            curves.append(
                [_accuracy(kernels, biases, ranked, [int(q * n + 0.5) for n in counts], x, y) for q in FRACTIONS]
            )
        return curves

    def loop() -> np.ndarray:
        return np.swapaxes(jax.device_get([of_run(subject) for subject in subjects]), 0, 1)

    return loop


ABLATION_MEASUREMENTS = (ablation,)
