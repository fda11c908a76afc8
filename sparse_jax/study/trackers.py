"""Where the course of runs is shown beside the workdir, which has it all anyway: one adapter of three methods each.

    begin(run, rows)     a run begins, or goes on after these rows of its metrics; what was told since does not count
    log(run, row)        a row of its metrics
    end(run, result)     its result

Runs that train together are as many runs of the tracker. Nothing is imported before it is used; MODULES says what a
tracker needs.
"""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sparse_jax.errors import UserError
from sparse_jax.study.grid import Run
from sparse_jax.study.rows import describe_settings

MODULES = {"none": None, "tensorboard": "tensorboardX", "wandb": "wandb"}
PROJECT = "sparse_jax"


class Tracker(Protocol):
    """What hears of the runs of a study."""

    def begin(self, run: Run, rows: list[dict[str, Any]]) -> None: ...

    def log(self, run: Run, row: dict[str, Any]) -> None: ...

    def end(self, run: Run, result: dict[str, Any]) -> None: ...


def check(name: str) -> None:
    """Raises UserError if a tracker lacks its package."""
    module = MODULES[name]
    if module is not None and find_spec(module) is None:
        raise UserError(f"--tracker={name} needs the package {module}: pip install -e '.[trackers]'")


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """What of a row can be drawn over time."""
    return {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}


class Nothing:
    """Hears, and tells nobody."""

    def __init__(self, root: Path) -> None:
        pass

    def begin(self, run: Run, rows: list[dict[str, Any]]) -> None:
        pass

    def log(self, run: Run, row: dict[str, Any]) -> None:
        pass

    def end(self, run: Run, result: dict[str, Any]) -> None:
        pass


class TensorBoard:
    """Event files, one folder a run: `tensorboard --logdir=WORKDIR/tensorboard`."""

    def __init__(self, root: Path) -> None:
        self._root, self._writers = root / "tensorboard", {}

    def begin(self, run: Run, rows: list[dict[str, Any]]) -> None:
        """All rows are told anew, and what was told before is purged: a killed process may not have written it."""
        from tensorboardX import SummaryWriter

        self._writers[run.id] = SummaryWriter(str(self._root / run.id), purge_step=0)
        for row in rows:
            self.log(run, row)

    def log(self, run: Run, row: dict[str, Any]) -> None:
        for name, value in numbers(row).items():
            self._writers[run.id].add_scalar(name, value, row["step"])

    def end(self, run: Run, result: dict[str, Any]) -> None:
        writer = self._writers.pop(run.id)
        text = "\n".join(f"    {name}: {value}" for name, value in describe_settings(run).items())
        writer.add_text("settings", text)
        for name, value in numbers(result).items():
            writer.add_scalar(f"result/{name}", value, run.problem.steps)
        writer.close()


class WandB:
    """Runs of Weights & Biases, in the project of its environment variables, else sparse_jax; it may be offline."""

    def __init__(self, root: Path) -> None:
        self._root, self._runs = root, {}

    def begin(self, run: Run, rows: list[dict[str, Any]]) -> None:
        """A run that is known there goes on; it takes no step twice."""
        import wandb

        found = self._runs[run.id] = wandb.init(
            project=None if "WANDB_PROJECT" in os.environ else PROJECT, id=run.id, name=run.id, resume="allow",
            dir=str(self._root), config=describe_settings(run), reinit="create_new",
            settings=wandb.Settings(silent=True),
        )  # fmt: skip
        for row in rows:
            if row["step"] >= found.step:
                self.log(run, row)

    def log(self, run: Run, row: dict[str, Any]) -> None:
        self._runs[run.id].log(numbers(row), step=row["step"])

    def end(self, run: Run, result: dict[str, Any]) -> None:
        found = self._runs.pop(run.id)
        found.summary.update(numbers(result) | {"status": result["status"]})
        found.finish()


TRACKERS = {"none": Nothing, "tensorboard": TensorBoard, "wandb": WandB}


class Guarded:
    """A tracker whose first error is told, and which hears no more after it: the workdir has all that counts."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker

    def begin(self, run: Run, rows: list[dict[str, Any]]) -> None:
        self._try(lambda tracker: tracker.begin(run, rows))

    def log(self, run: Run, row: dict[str, Any]) -> None:
        self._try(lambda tracker: tracker.log(run, row))

    def end(self, run: Run, result: dict[str, Any]) -> None:
        self._try(lambda tracker: tracker.end(run, result))

    def _try(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:  # of the network, of an account, of the disk that it writes to
            self._tracker = None
            message = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(f"note: --tracker={self._name} hears no more of this session: {message}", file=sys.stderr)


def track(name: str, root: Path) -> Tracker:
    """The tracker of a study in the workdir `root`."""
    return Guarded(name, TRACKERS[name](root))
