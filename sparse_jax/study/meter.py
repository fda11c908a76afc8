"""What a user sees of long work: a bar with the time left, or now and then a line where there is no terminal."""

import sys
import time
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sparse_jax.study.summary import make_console

EVERY = 15.0  # seconds between two lines


class Meter:
    """Progress in steps of equal size. A context manager."""

    def __init__(self, done: int, total: int) -> None:
        """`done` of `total` steps are there already."""
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("time left"), TimeRemainingColumn(),
            console=make_console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._progress.add_task("compiling", completed=done, total=total)
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, line: str, steps: int = 1) -> None:
        """Some more steps, and what is to be said of them."""
        self._progress.update(self._task, description=line, advance=steps)
        if self._progress.disable and time.monotonic() - self._told >= EVERY:
            (task,) = self._progress.tasks
            print(f"{task.percentage:3.0f} %  {line}", file=sys.stderr, flush=True)
            self._told = time.monotonic()
