"""The workdir of a study: what is on disk, where, and how it survives a kill at any instant.

    config.json                    every run that was asked for, by whom and where
    results.csv                    derived from the results below, never read back
    runs/<run_id>/result.json      one finished run
    runs/<run_id>/failure.json     one that ended with an error; a result counts more
    runs/<run_id>/masks.npz        its topology (see mask_file)
    runs/<run_id>/ablations.json   what it can do without (see ablations)
    metrics/<run_id>.jsonl         one line a logged step
    groups/<cohort>.json           which runs of the cohort train together
    checkpoints/<group>/           written by training.checkpoint
    locks/<cohort>.lock            held by the worker that trains the cohort; study.lock: that writes for all
"""

import contextlib
import csv
import dataclasses
import io
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparse_jax.errors import UserError
from sparse_jax.study.files import append_lines, dump_json, parse_object, read_lines, read_object, write_atomic
from sparse_jax.study.locks import awaited, claimed

_SAFE_NAME = re.compile(r"[A-Za-z0-9_=+-][A-Za-z0-9._=+-]*")
RESULT, FAILURE, MASKS = "result.json", "failure.json", "masks.npz"


def open_store(workdir: str | os.PathLike) -> "Store":
    """Create the folders of `workdir`. Raises UserError if it is no folder or not writable."""
    root = Path(workdir).expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
        for folder in ("runs", "metrics", "groups", "checkpoints", "locks"):
            (root / folder).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"workdir {root} cannot be written: {error.strerror}") from error
    return Store(root)


@dataclasses.dataclass(frozen=True)
class Store:
    """One workdir; `open_store` makes it.

    Names of runs, groups and cohorts become file names: a name outside [A-Za-z0-9._=+-]+, or one
    with a leading dot, raises ValueError.

    Attributes:
      root: absolute path of the workdir.
    """

    root: Path

    def read_config(self) -> dict | None:
        """The study's config, None if there is none yet. Raises UserError if it is broken."""
        path = self.root / "config.json"
        try:
            config = parse_object(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        if config is None:
            raise UserError(f"{path} is not a JSON object; restore it or choose another --workdir")
        return config

    def write_config(self, config: dict) -> None:
        write_atomic(self.root / "config.json", dump_json(config, indent=2))

    def write_result(self, run_id: str, result: dict) -> None:
        """Declare the run finished. Its existence is what resume goes by, so write it last."""
        write_atomic(self._run(run_id) / RESULT, dump_json(result, indent=2))
        (self._run(run_id) / FAILURE).unlink(missing_ok=True)

    def forget_failures(self, run_ids: Iterable[str]) -> None:
        """Let the runs count as not yet trained, if they ended with an error."""
        for run_id in run_ids:
            (self.root / "runs" / _safe(run_id) / FAILURE).unlink(missing_ok=True)

    def write_failure(self, run_id: str, failure: dict) -> None:
        """Record that the run ended with an error, and with which."""
        write_atomic(self._run(run_id) / FAILURE, dump_json(failure, indent=2))

    def write_masks(self, run_id: str, masks: Mapping[str, Any]) -> None:
        """Keep the topology of a run. Write it before the result: a finished run then has its masks."""
        from sparse_jax.study.mask_file import save_masks  # it imports NumPy, which nothing else here needs

        save_masks(self._run(run_id) / MASKS, masks)

    def _run(self, run_id: str) -> Path:
        folder = self.root / "runs" / _safe(run_id)
        folder.mkdir(exist_ok=True)
        return folder

    def read_results(self) -> dict[str, dict]:
        """Run id -> result, sorted by run id; a missing or broken result.json counts as absent."""
        return self._read_all(RESULT)

    def read_result(self, run_id: str) -> dict | None:
        """The result of a run; None where it is missing or broken."""
        return read_object(self.root / "runs" / _safe(run_id) / RESULT)

    def read_failures(self) -> dict[str, dict]:
        """Run id -> failure of the runs that ended with an error and have no result, sorted by run id."""
        results = self.read_results()
        return {run_id: failure for run_id, failure in self._read_all(FAILURE).items() if run_id not in results}

    def _read_all(self, name: str) -> dict[str, dict]:
        found = {file.parent.name: read_object(file) for file in sorted(self.root.glob(f"runs/*/{name}"))}
        return {run_id: value for run_id, value in found.items() if value is not None}

    def done(self, run_ids: Iterable[str], *, failed: bool) -> frozenset[str]:
        """Those of the runs that have a result, or also those that have a failure; reads no others."""
        names = (RESULT, FAILURE) if failed else (RESULT,)
        return frozenset(run_id for run_id in run_ids if any(self._has(run_id, name) for name in names))

    def _has(self, run_id: str, name: str) -> bool:
        return read_object(self.root / "runs" / _safe(run_id) / name) is not None

    def read_groups(self, cohort: str) -> dict[str, list[str]]:
        """Group -> the runs that train together, of the groups of a cohort that were begun. UserError if damaged."""
        path = self._groups(cohort)
        groups = read_object(path)
        if groups is None and path.exists():
            raise UserError(f"{path} is not a JSON object; restore it or choose another --workdir")
        return groups or {}

    def write_groups(self, cohort: str, groups: dict[str, list[str]]) -> None:
        write_atomic(self._groups(cohort), dump_json(groups, indent=2))

    def _groups(self, cohort: str) -> Path:
        return self.root / "groups" / f"{_safe(cohort)}.json"

    def forget_groups(self, cohort: str, done: Collection[str]) -> None:
        """Drop the groups of a cohort that have runs left to train, with their checkpoints: they begin anew."""
        groups = self.read_groups(cohort)
        kept = {name: ids for name, ids in groups.items() if {*ids} <= {*done}}
        self.write_groups(cohort, kept)
        for name in groups.keys() - kept.keys():
            shutil.rmtree(self.checkpoints(name), ignore_errors=True)

    def read_lanes(self, cohort: str) -> int | None:
        """How many runs of a cohort train at once, if that was decided."""
        return (read_object(self._lanes(cohort)) or {}).get("lanes")

    def write_lanes(self, cohort: str, lanes: int) -> None:
        """Remember it: all sessions have one number, whatever the memory of their devices."""
        write_atomic(self._lanes(cohort), dump_json({"lanes": lanes}))

    def _lanes(self, cohort: str) -> Path:
        return self.root / "groups" / f"{_safe(cohort)}-lanes.json"

    def write_csv(self, columns: tuple[str, ...], order: Sequence[str]) -> None:
        """Derive results.csv: one row for each run of `order` that ended, one cell a column.

        The column `run_id` is the run's name, every other a key of its result. What a result lacks
        or has as None is an empty cell; floats are the shortest text that reads back equal; a list is 1:2:3.
        """
        results = self._read_all(FAILURE) | self.read_results()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for run_id in order:
            if run_id in results:
                row = {**results[run_id], "run_id": run_id}
                writer.writerow([_cell(row.get(column)) for column in columns])
        write_atomic(self.root / "results.csv", text.getvalue())

    def append_metrics(self, run_id: str, row: dict) -> None:
        """Append one row, with its "step". After a kill call `truncate_metrics` first."""
        append_lines(self._metrics(run_id), [row])

    def read_metrics(self, run_id: str) -> list[dict]:
        """The intact rows in the order written; none if the run has no file."""
        return read_lines(self._metrics(run_id))

    def truncate_metrics(self, run_id: str, step: int) -> None:
        """Drop the rows after `step` and what a kill cut short.

        A run resumed from its checkpoint at `step` then leaves the file of an uninterrupted run.
        """
        if self._metrics(run_id).exists():
            rows = [row for row in self.read_metrics(run_id) if row["step"] <= step]
            write_atomic(self._metrics(run_id), "".join(map(dump_json, rows)))

    def copy_metrics(self, run_id: str, longer: str) -> None:
        """Let the rows of one run be the first ones of another."""
        write_atomic(self._metrics(longer), "".join(map(dump_json, self.read_metrics(run_id))))

    def checkpoints(self, group: str) -> Path:
        """The folder for the checkpoints of `group`; may not exist yet."""
        return self.root / "checkpoints" / _safe(group)

    def claim(self, cohort: str) -> contextlib.AbstractContextManager[str | None]:
        """Hold a cohort if no other worker does: None, or who has it."""
        return claimed(self._lock(cohort))

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Hold what belongs to the whole study, config.json and results.csv, waiting for whoever writes them."""
        return awaited(self._lock("study"))

    def _lock(self, name: str) -> Path:
        return self.root / "locks" / f"{_safe(name)}.lock"

    def _metrics(self, run_id: str) -> Path:
        return self.root / "metrics" / f"{_safe(run_id)}.jsonl"


def _safe(name: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a run, a group or a cohort")
    return name


def _cell(value: Any) -> Any:
    return ":".join(map(str, value)) if isinstance(value, list) else value
