"""A study from its grid to its table. Imports jax only when everything is known to be in order."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from sparse_jax.config import AUTO, StudyConfig, settings
from sparse_jax.data.catalog import make_reader
from sparse_jax.errors import UserError
from sparse_jax.flags import Grid
from sparse_jax.study.grid import Study, dataset_label, digest, make_study
from sparse_jax.study.interrupt import INTERRUPTED, Interrupt
from sparse_jax.study.mask_file import FILE
from sparse_jax.study.store import Store, open_store
from sparse_jax.study.summary import make_console, print_plan, print_summary
from sparse_jax.values import show


def identity(grid: Grid) -> dict[str, Any]:
    """The settings that determine the results of a study: those a workdir cannot change."""
    chosen = {name: field for name, field in settings(StudyConfig).items() if field.metadata["affects"]}
    return {name: list(values) for name, values in grid.axes.items()} | {
        name: [getattr(grid.study, name)] for name in chosen
    }


def _plain(value: Any) -> Any:
    """As JSON reads it back: tuples are lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _workdir(grid: Grid) -> Path:
    if grid.study.workdir != AUTO:
        return Path(grid.study.workdir).expanduser()
    names = f"{dataset_label(grid.axes['dataset'][0])}-{grid.axes['model'][0]}"
    return Path("results") / f"{names}-{digest(_plain(list(identity(grid).items())))}"


def _frozen(grid: Grid, study: Study) -> dict[str, Any]:
    """What config.json says of a study and a later session must agree with; mask files by the digest of their masks."""
    from_file = [run for run in study.runs if run.masks]
    return {
        "settings": identity(grid),
        "runs": {run.id: dataclasses.asdict(run.config) for run in study.runs},
        "masks": {run.config.initial_topology.removeprefix(FILE): run.masks for run in from_file},
    }


def _refuse_change(workdir: Path, saved: dict[str, Any], frozen: dict[str, Any]) -> None:
    """Refuse to continue a study as another one, by the name of the first setting or mask file that differs."""
    if not {"settings", "runs", "sessions", "data"} <= saved.keys():
        raise UserError(f"{workdir / 'config.json'} is not that of a study: choose another --workdir")
    if saved["runs"] == _plain(frozen["runs"]):
        pinned = saved.get("masks") or {}
        for path in (path for path, digest in frozen["masks"].items() if pinned.get(path) != digest):
            raise UserError(
                f"mask file {path} is not the one that the study in workdir {workdir} was begun with: restore it, or "
                "choose another --workdir"
            )
        return
    for name, values in frozen["settings"].items():
        if name not in saved["settings"]:
            break
        before = saved["settings"][name]
        if before != _plain(values):
            old, new = (", ".join(show(_tuple(value)) for value in side) for side in (before, values))
            raise UserError(
                f"workdir {workdir} holds a study with --{name}={old}, not {new}: choose another --workdir, "
                "or the old value"
            )
    raise UserError(
        f"workdir {workdir} holds a study of an older version, whose settings meant something else: choose another "
        "--workdir"
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(store: Store, grid: Grid, frozen: dict[str, Any]) -> bool:
    """Whether the workdir holds this study already; any other study in it is refused."""
    saved = store.read_config()
    if saved is None:
        return False
    if not grid.study.resume:
        raise UserError(f"workdir {store.root} already holds a study: choose another --workdir, or drop --noresume")
    _refuse_change(store.root, saved, frozen)
    return True


def _tell(study: Study) -> None:
    for notice in study.notices:
        print(f"note: {notice}", file=sys.stderr)


def train_study(grid: Grid) -> int:
    """Train a grid, or print its plan; the exit status of the program.

    Raises:
      UserError: for bad input; nothing has been written then.
    """
    interrupt = Interrupt()
    study = make_study(grid)
    console, workdir = make_console(), _workdir(grid)
    if grid.study.dry_run:
        _tell(study)
        print_plan(console, study)
        print(f"would write to {workdir}")
        return 0
    frozen, read = _frozen(grid, study), make_reader(grid.study.data_dir)
    if not _check(Store(workdir), grid, frozen):
        for name in reversed(grid.axes["dataset"]):  # the first one is read last, and stays
            read(name)
    _tell(study)
    store = open_store(workdir)
    with store.lock("study", *(cohort.id for cohort in study.cohorts)):
        if not _check(store, grid, frozen):
            store.write_config(frozen | {"sessions": [], "data": {}})
        from sparse_jax.study.execute import execute

        if not execute(study, grid.study, store, interrupt, read):
            print(f"stopped and saved: the same command continues {workdir}", file=sys.stderr)
            return INTERRUPTED
    print_summary(console, study, store.read_results())
    print(f"results: {workdir / 'results.csv'}")
    return 0
