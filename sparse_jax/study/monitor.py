"""What a user sees while a study trains: a bar with the time left, or a line a group where there is no terminal."""

import sys
import time
from collections.abc import Sequence
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sparse_jax.flags import BEGAN
from sparse_jax.study.grid import Run
from sparse_jax.study.summary import make_console


class Monitor:
    """The progress of a study, in optimiser steps of all its runs together. A context manager."""

    def __init__(self, device: str) -> None:
        """`device` names what trains the runs."""
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("time left"), TimeRemainingColumn(),
            console=make_console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("compiling", total=None)
        self._device, self._stepped, self._steps = device, False, 0
        self._to_train = self._trained = self._total = 0
        self._placement = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def remaining(self, runs: Sequence[Run]) -> None:
        """Say which runs have not ended, of this worker and of others that may train some of them."""
        self._to_train = self._trained + len(runs)
        self._total = self._steps + sum(run.problem.steps for run in runs)

    def begin(self, group: str, done: int, placement: str) -> None:
        """Name the group that trains now, of whose steps a checkpoint has `done` already, and where its data lie."""
        if placement != self._placement:
            self.say(placement)
        self._placement = placement
        self._total -= done
        self._progress.update(self._task, description=group, total=self._total)

    def advance(self, steps: int) -> None:
        """Steps just trained, of all runs of the group together."""
        self._steps += steps
        self._progress.advance(self._task, steps)
        if not self._stepped:
            self._stepped = True
            self.say(f"{self._device}: first step {time.monotonic() - BEGAN:.1f} s after the start")

    def end(self, group: str, runs: int, seconds: float, cost: str) -> None:
        """A group is trained and its results are written; `cost` says what a run of it took."""
        self._trained += runs
        self.say(f"{self._trained}/{self._to_train} runs  {group}  {seconds:.1f} s  {cost}")

    def failed(self, group: str, runs: int, message: str) -> None:
        """A group ended with an error; its runs do not count as trained."""
        self.say(f"{runs} runs failed  {group}  {message}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if not self._progress.disable:
            self._progress.console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)
