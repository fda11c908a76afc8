"""What is known of a run: a row of results.csv, a line of its metrics."""

import dataclasses
import math
from typing import Any

from sparse_jax.analysis.categories import collapse_line
from sparse_jax.config import RunConfig
from sparse_jax.study.grid import Run
from sparse_jax.topology.paths import Connectivity
from sparse_jax.values import show

# The columns of results.csv that come first; the other settings of the run follow.
LEADING = (
    "run_id", "dataset", "model", "method", "activation", "normalization", "epsilon", "sparsity_target",
    "sparsity", "connections", "parameters", "seed", "epochs", "train_accuracy", "val_accuracy",
    "best_val_accuracy", "test_accuracy", "test_accuracy_at_best_val", "train_loss", "val_loss", "status",
    "seconds",
)
SETTINGS = tuple(field.name for field in dataclasses.fields(RunConfig))
CONNECTIVITY = ("dead_neurons", "effective_connections", "effective_sparsity", "collapsed_layers")
STABILITY = ("dead_classes", "silent_neurons", "silent_share", "loss_spikes")
COST = ("inference_flops", "training_flops", "training_flops_of_dense", "step_ms", "peak_memory_mb")
TRAILING = ("kernel_sparsity", "explored", *CONNECTIVITY, *STABILITY, *COST, "majority", "lanes", "session", "digest")
COLUMNS = (*LEADING, *(name for name in SETTINGS if name not in LEADING), *TRAILING)


def describe_settings(run: Run) -> dict[str, Any]:
    """The settings of a run as results.csv shows them. `epsilon` is the solved one where there is one."""
    values = {name: getattr(run.config, name) for name in SETTINGS}
    texts = {name: show(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return texts | {"sparsity_target": run.config.sparsity, "epsilon": run.allocation.epsilon}


def sparsity(run: Run, connections: int) -> float:
    """The inactive share of the maskable connections; 0 for a dense network."""
    return 1 - connections / run.problem.masked_size if run.problem.masked else 0.0


def kernel_sparsity(run: Run, connections: int) -> float:
    """The inactive share of all kernels, those of `dense_layers` included."""
    return 1 - all_connections(run, connections) / _kernel_size(run)


def connectivity(run: Run, found: Connectivity | None) -> dict[str, Any]:
    """What of the network is cut off, `dense_layers` included; `effective_sparsity` is that of all kernels, too."""
    if found is None:
        return dict.fromkeys(CONNECTIVITY)
    effective = int(found.effective_connections)
    cells = (int(found.dead_neurons), effective, 1 - effective / _kernel_size(run), int(found.collapsed_layers))
    return dict(zip(CONNECTIVITY, cells, strict=True))


def _kernel_size(run: Run) -> int:
    return sum(math.prod(shape) for shape in run.problem.kernels.values())


def explored(run: Run, connections: int) -> float | None:
    """The explored rate of ITOP (Liu et al. 2021): the share of the maskable connections ever active; 1 if dense.

    None of a network that is executed sparsely, which does not remember where its connections were.
    """
    if run.problem.slots:
        return None
    return connections / run.problem.masked_size if run.problem.masked else 1.0


def all_connections(run: Run, connections: int) -> int:
    """Active connections of all kernels, those without a mask included."""
    return connections + sum(
        math.prod(shape) for name, shape in run.problem.kernels.items() if name not in run.problem.masked
    )


def number(value: Any) -> float:
    """A float32 as the float64 of the same shortest text."""
    return float(str(value))


def share(correct: Any, examples: Any) -> float | None:
    """An accuracy in [0, 1]; None of no examples."""
    return int(correct) / int(examples) if examples else None


def status(finite: bool, accuracy: float, majority: float, examples: int) -> str:
    """ok, diverged (a loss was not finite) or collapsed (no better than always naming one class: `collapse_line`)."""
    if not finite:
        return "diverged"
    return "collapsed" if accuracy <= collapse_line(majority, examples) else "ok"
