"""How long a study will take: by the operations of its runs, and by those of the workdir that are finished.

Imports no jax. On a CPU the speed of products is measured with NumPy; a study that has finished runs knows its own.
"""

import math
import statistics
import time
from collections.abc import Iterable, Mapping

import numpy as np

from sparse_jax.models.shapes import OUTLINES
from sparse_jax.study.execution import computes_on_cpu
from sparse_jax.study.grid import Cohort, Run, Study
from sparse_jax.study.store import Store
from sparse_jax.training.flops import product

PASSES = 3  # products of a step: forward, and the two gradients
STEP_SECONDS = 5e-5  # that a step takes besides its products
COHORT_SECONDS = 5.0  # to compile the programs of a cohort
SPARSE_SLOWDOWN = 5.0  # of an operation on connections against one of a dense product: benchmark.py --only=sparse_step
SIDE, TRIES = 768, 5  # of the product that measures the speed


def estimate(study: Study, store: Store) -> tuple[float, str] | None:
    """(seconds, by what) that a study has left; None on an accelerator of which no run of the study is known."""
    results = store.read_results()
    left = [cohort for cohort in study.cohorts if any(run.id not in results for run in cohort.runs)]
    known = [run for run in study.runs if run.id in results]
    if not known and not computes_on_cpu():
        return None
    speed = _speed() if computes_on_cpu() else 1e12
    model = sum(_seconds(run, speed) for run in _unfinished(left, results)) + COHORT_SECONDS * len(left)
    if not known:
        return model, "by the operations and the speed of products on this machine"
    factor = statistics.median(results[run.id]["seconds"] / _seconds(run, speed) for run in known)
    return model * factor, f"by {len(known)} finished runs"


def _unfinished(cohorts: Iterable[Cohort], results: Mapping[str, object]) -> list[Run]:
    return [run for cohort in cohorts for run in cohort.runs if run.id not in results]


def _seconds(run: Run, speed: float) -> float:
    """Seconds of a run of which the products have so many operations a second."""
    problem = run.problem
    applications = OUTLINES[run.config.model].applications(run.config, problem.input_shape)
    sparse = {name: round(SPARSE_SLOWDOWN * run.start[name]) for name in problem.slots}
    operations = PASSES * run.config.batch_size * product(problem.kernels, applications, sparse)
    return problem.steps * (operations / speed + STEP_SECONDS)


def _speed() -> float:
    """Operations a second of products of float32 matrices in NumPy, on all cores."""
    matrix = np.ones((SIDE, SIDE), np.float32)
    times = []
    for _ in range(TRIES):
        begun = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - begun)
    return 2 * SIDE**3 / min(times)


def in_words(seconds: float) -> str:
    """A duration as one says it: 40 s, 7 min, 3 h, 2 days."""
    for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * length:
            return f"{max(1, round(seconds / length))} {unit}"
    return f"{math.ceil(seconds / 86_400)} days"
