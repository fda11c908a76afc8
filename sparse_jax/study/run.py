"""A study from its grid to its table. Imports jax only when everything is known to be in order."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from sparse_jax.config import AUTO, StudyConfig, settings
from sparse_jax.errors import UserError
from sparse_jax.flags import Grid, show
from sparse_jax.study.grid import Study, digest, make_study
from sparse_jax.study.interrupt import INTERRUPTED
from sparse_jax.study.store import Store, open_store
from sparse_jax.study.summary import make_console, print_plan, print_summary


def identity(grid: Grid) -> dict[str, Any]:
    """The settings that determine the results of a study: those a workdir cannot change."""
    chosen = {name: field for name, field in settings(StudyConfig).items() if field.metadata["affects"]}
    return {name: list(values) for name, values in grid.axes.items()} | {
        name: [getattr(grid.study, name)] for name in chosen
    }


def _plain(value: Any) -> Any:
    """As JSON reads it back: tuples are lists."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _workdir(grid: Grid) -> Path:
    if grid.study.workdir != AUTO:
        return Path(grid.study.workdir).expanduser()
    names = "-".join(Path(grid.axes[field][0]).stem for field in ("dataset", "model"))
    return Path("results") / f"{names}-{digest(_plain(list(identity(grid).items())))}"


def _refuse_change(workdir: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to continue a study under other settings, by the name of the first that differs."""
    for name in new:
        if name not in old or old[name] != _plain(new[name]):
            before = ", ".join(show(tuple(v) if isinstance(v, list) else v) for v in old.get(name, ()))
            now = ", ".join(show(value) for value in new[name])
            raise UserError(
                f"workdir {workdir} holds a study with --{name}={before or 'unknown'}, not {now}: "
                "choose another --workdir, or the old value"
            )


def _open(workdir: Path, grid: Grid, study: Study) -> Store:
    """The workdir with its config.json; a study of other settings in it is refused before anything is written."""
    saved = Store(workdir).read_config()
    if saved is not None:
        if not grid.study.resume:
            raise UserError(f"workdir {workdir} already holds a study: choose another --workdir, or drop --noresume")
        if "settings" not in saved:
            raise UserError(f"{workdir / 'config.json'} is not that of a study: choose another --workdir")
        _refuse_change(workdir, saved["settings"], identity(grid))
    store = open_store(workdir)
    if saved is None:
        runs = {run.id: dataclasses.asdict(run.config) for run in study.runs}
        store.write_config({"settings": identity(grid), "runs": runs, "sessions": []})
    return store


def train_study(grid: Grid) -> int:
    """Train a grid, or print its plan; the exit status of the program.

    Raises:
      UserError: for bad input; nothing has been written then.
    """
    study = make_study(grid)
    console = make_console()
    for notice in study.notices:
        print(f"note: {notice}", file=sys.stderr)
    workdir = _workdir(grid)
    if grid.study.dry_run:
        print_plan(console, study)
        print(f"would write to {workdir}")
        return 0
    store = _open(workdir, grid, study)
    with store.lock(*(cohort.id for cohort in study.cohorts)):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's loader of cached programs is noisy on CPU
        from sparse_jax.study.execute import execute

        if not execute(study, grid.study, store):
            print(f"stopped and saved: the same command continues {workdir}", file=sys.stderr)
            return INTERRUPTED
    print_summary(console, study, store.read_results())
    print(f"results: {workdir / 'results.csv'}")
    return 0
