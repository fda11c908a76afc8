"""What a user sees of a search: a bar with the time left, or now and then a line where there is no terminal."""

import sys
import time
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sparse_jax.study.summary import make_console

EVERY = 15.0  # seconds between two lines


class Monitor:
    """The progress of a search in generations. A context manager."""

    def __init__(self, done: int, total: int) -> None:
        """`done` of `total` generations are there already."""
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

    def advance(self, line: str) -> None:
        """One more generation, and what is to be said of it."""
        self._progress.update(self._task, description=line, advance=1)
        if self._progress.disable and time.monotonic() - self._told >= EVERY:
            print(line, file=sys.stderr, flush=True)
            self._told = time.monotonic()
