"""What a group of runs costs: operations by its connections, and the time and the memory that were measured."""

import contextlib
import re
import resource
import sys
from pathlib import Path
from typing import Any

import jax

from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import NATURES
from sparse_jax.study.fleet import Fleet
from sparse_jax.study.grid import Run
from sparse_jax.training.flops import Products, product, products, share_of_dense, step, update

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost:
    """The floating-point operations of the runs of a group so far (`training.flops`), and the time of their steps.

    Attributes:
      flops: by run, in the order of the group.
      connections: by run and layer, that are used, since the last look.
    """

    def __init__(self, runs: tuple[Run, ...], flops: list[int] | None) -> None:
        """`flops` are those of a checkpoint; None at the beginning."""
        self.config, self.problem = runs[0].config, runs[0].problem
        self.flops = flops or [0] * len(runs)
        self._applications = OUTLINES[self.config.model].applications(self.config, self.problem.input_shape)
        self.connections: list[dict[str, int]] = []
        self._products: list[Products] = []
        self._seconds, self._steps, self._warm = 0.0, 0, False

    def look(self, fleet: Fleet) -> None:
        """Count the connections of every run, when they may have changed."""
        if self._products and not self._changes:
            return
        used, trained = fleet.connections()
        lanes = range(len(self.flops))
        self.connections = [_lane(used, i) for i in lanes]
        sides = zip(self.connections, (_lane(trained, i) for i in lanes), strict=True)
        self._products = [products(self.problem.kernels, self._applications, *both) for both in sides]

    @property
    def _changes(self) -> bool:
        """Whether the connections of a layer may change their number."""
        config = self.config
        moves = config.scope not in (None, "layer") or config.ablation or config.importance_pruning
        return bool(moves) or NATURES[config.method].count != "constant"

    def add_steps(self, count: int, seconds: float) -> None:
        """Optimiser steps just made; the time of the first ones, which may compile, is left out."""
        for i, cost in enumerate(self._products):
            self.flops[i] += count * self.config.batch_size * step(self.config, cost)
        if self._warm:
            self._seconds, self._steps = self._seconds + seconds, self._steps + count
        self._warm = True

    def compiles_again(self) -> None:
        """The next steps are those of a new program."""
        self._warm = False

    def add_update(self) -> None:
        """A topology update, of the connections before it."""
        for i, cost in enumerate(self._products):
            self.flops[i] += self.config.batch_size * update(self.config, cost)

    def of(self, lane: int, connections: dict[str, int]) -> dict[str, Any]:
        """What the result of a run says of its cost, given the connections that it ends with."""
        return {
            "inference_flops": product(self.problem.kernels, self._applications, connections),
            "training_flops": self.flops[lane],
            "training_flops_of_dense": self._of_dense(self.flops[lane]),
            "step_ms": self.step_ms,
            "peak_memory_mb": peak_memory() / 2**20,
        }

    def _of_dense(self, flops: float) -> float | None:
        """None without training."""
        if not self.problem.steps:
            return None
        dense = product(self.problem.kernels, self._applications, {})
        return share_of_dense(flops, dense, self.problem.steps * self.config.batch_size)

    @property
    def summary(self) -> str:
        """The cost of a run, on average, in words."""
        flops = sum(self.flops) / len(self.flops)
        step = "" if self.step_ms is None else f"{self.step_ms:.3g} ms a step, "
        memory, share = f"{peak_memory() / 2**20:,.0f} MB at most", self._of_dense(flops)
        return f"{step}{flops:.2g} FLOPs ({share:.3g} of dense), {memory}" if share is not None else memory

    @property
    def step_ms(self) -> float | None:
        """Milliseconds of a step, per run; None if all were made before, or with the first ones."""
        return 1e3 * self._seconds / self._steps / len(self.flops) if self._steps else None


def peak_memory() -> int:
    """Bytes: the most that the first device has had in use, or on a CPU the process since `forget_peak`."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return device.memory_stats()["peak_bytes_in_use"]
    if _STATUS.exists():
        return 1024 * int(re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Let the peak of memory be that from now on, where the system can: Linux, of a process on a CPU."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")  # proc(5): the peak of the resident set becomes what is resident


def _lane(counts: dict[str, Any], lane: int) -> dict[str, int]:
    return {name: int(of_layer[lane]) for name, of_layer in counts.items()}
