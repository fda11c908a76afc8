"""What `benchmark.py` measures of `search.py safs`: candidates in one program, against a program for each of them."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from measurements import Bench, Measurement, timed

from sparse_jax.activations.choice import Operators
from sparse_jax.config import SAFS_OPERATORS, RunConfig
from sparse_jax.data.arrays import DatasetInfo
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.normalization import fit
from sparse_jax.search.side_by_side import SideBySide, Watch
from sparse_jax.study.grid import Run
from sparse_jax.study.group import hyper_params
from sparse_jax.study.resolve import connections_of, settings_of
from sparse_jax.study.sources import Lent
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.parts import Choices
from sparse_jax.training.problem import make_problem
from sparse_jax.training.state import Chosen
from sparse_jax.training.train import make_train

CANDIDATES = 16
SIZES = (4500, 500, 0)  # examples for training and validation; no test


class _Nobody:
    asked = False


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """No program is there already, of an earlier process or of this one."""
    jax.config.update("jax_enable_compilation_cache", False)
    jax.clear_caches()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def candidates(bench: Bench) -> list[Measurement]:
    """Sixteen candidates for LeNet-5 at 99 %, each trained for an epoch of 4,500 examples, compilation included."""
    config = settings_of(RunConfig(
        dataset="mnist", model="lenet5_safs", method="static", sparsity=0.99, allocation="uniform", optimizer="adam",
        batch_size=128, epochs=1, normalization="unit",
    ))  # fmt: skip
    shape, rng = (28, 28, 1), np.random.default_rng(0)
    x = rng.integers(0, 256, (sum(SIZES), *shape), np.uint8)
    data = Data(x, rng.integers(0, 10, len(x), np.int32), fit("unit", x[: SIZES[0]]), levels_of(x[: SIZES[0]]))
    problem = make_problem(config, DatasetInfo("random", shape, 10, len(x), 1), SIZES)
    run = Run("run", config, problem, *connections_of(config, problem, Lent()), Lent())
    count = 2 if bench.smoke else CANDIDATES
    operators = rng.integers(0, len(SAFS_OPERATORS), (count, 4), np.int32)
    with _compiling():
        ours = timed(lambda: _together(bench, run, operators, data))
        theirs = timed(lambda: [_alone(bench.hardware, run, row, data) for row in operators])
    detail = f"LeNet-5, {count} candidates of {problem.steps} steps, compilation included; other: a program for each"
    return [Measurement("candidates", f"{ours:.1f} s", f"{theirs:.1f} s", ours / theirs, "≤ 0.6", detail)]


def _together(bench: Bench, run: Run, operators: np.ndarray, data: Data) -> None:
    choices = Choices(Operators(SAFS_OPERATORS, RunConfig.all_relu_alpha, "layer"), ("adam",), ("cosine",))
    hyper = hyper_params(run)
    chosen = Chosen(np.int32(0), np.bool_(False), np.int32(0), np.float32(0.9), np.int32(0))
    hypers = [hyper._replace(chosen=chosen._replace(operator=row)) for row in operators]
    config = dataclasses.replace(run.config, momentum=0.9)
    program = SideBySide(config, run.problem, choices, bench.hardware, len(hypers), data)
    with tempfile.TemporaryDirectory() as folder:
        program.train(hypers, Watch(_Nobody(), lambda epochs: None, Path(folder) / "checkpoint", 1e9))


def _alone(hardware: Hardware, run: Run, operators: np.ndarray, data: Data) -> None:
    """One candidate by a program of its own, as one writes it: jitted functions of one network, on one device."""
    names, hyper = tuple(SAFS_OPERATORS[index] for index in operators), hyper_params(run)
    fns = make_train(dataclasses.replace(run.config, activation=names), run.problem)
    with jax.default_device(hardware.devices[0]):
        state = jax.jit(fns.init)(hyper, data)
        state = jax.jit(fns.steps, donate_argnums=0)(state, hyper, data, run.problem.steps)
        jax.block_until_ready(jax.jit(fns.validate)(state, data))


SEARCH_MEASUREMENTS = (candidates,)
