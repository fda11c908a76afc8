"""What a search has tried, one line a candidate, in candidates.jsonl of its workdir.

A line is appended by one write, so that a kill can cut short the last one only, which is dropped when the file is
opened again. The course of a search follows from its lines: no other state of it is kept.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sparse_jax.study.files import append_lines, dump_json, read_lines, write_atomic

CANDIDATES, TABLE = "candidates.jsonl", "candidates.csv"


class Records:
    """The lines of one search; one process at a time may write them."""

    def __init__(self, workdir: Path) -> None:
        """Read what is there, and drop what a kill cut short."""
        self._workdir, self._path = workdir, workdir / CANDIDATES
        self.lines = read_lines(self._path)
        if self._path.exists():
            write_atomic(self._path, "".join(map(dump_json, self.lines)))

    def add(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append lines, all by one write. Raises OSError where there is no room for them."""
        lines = list(lines)
        if lines:
            append_lines(self._path, lines)
            self.lines += lines

    def of(self, stage: str, pipeline: str) -> list[dict[str, Any]]:
        """The lines of a stage of a pipeline, in the order written."""
        return [line for line in self.lines if (line["stage"], line["pipeline"]) == (stage, pipeline)]

    def write_csv(self) -> None:
        """Derive candidates.csv: the columns of all lines; lists are joined by colons."""
        columns = list(dict.fromkeys(name for line in self.lines for name in line))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(line.get(name)) for name in columns] for line in self.lines)
        write_atomic(self._workdir / TABLE, text.getvalue())


def _cell(value: Any) -> Any:
    return ":".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
