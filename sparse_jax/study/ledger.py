"""config.json: every run that a workdir was asked for, with its settings. A workdir grows, and no run of it changes."""

import dataclasses
import shlex
import sys
from typing import Any

from sparse_jax.config import CONSTRUCTED, StudyConfig, settings
from sparse_jax.errors import UserError
from sparse_jax.flags import Grid
from sparse_jax.study.grid import Study
from sparse_jax.study.sources import masks_path
from sparse_jax.study.store import Store

EMPTY = {"runs": {}, "masks": {}, "data": {}, "sessions": [], "commands": []}


def plain(value: Any) -> Any:
    """As JSON reads it back: tuples are lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def asked(grid: Grid) -> dict[str, Any]:
    """The settings that say which runs a study has, each with its values."""
    chosen = {name: field for name, field in settings(StudyConfig).items() if field.metadata["affects"]}
    return {name: list(values) for name, values in grid.axes.items()} | {
        name: [getattr(grid.study, name)] for name in chosen
    }


def _command() -> str:
    return shlex.join(["python", "launch/train.py", *sys.argv[1:]])


def extended(store: Store, grid: Grid, study: Study) -> tuple[dict[str, Any], int]:
    """What config.json has to say for the study to be part of a workdir, and how many of its runs are new there.

    Raises:
      UserError: the workdir is in use and --noresume is given, holds something else, or had another mask file.
    """
    saved = store.read_config()
    if saved is None:
        saved = EMPTY
    elif not grid.study.resume:
        raise UserError(f"workdir {store.root} already holds a study: choose another --workdir, or drop --noresume")
    elif not EMPTY.keys() <= saved.keys():
        raise UserError(f"{store.root / 'config.json'} is not that of a study: choose another --workdir")
    lent = (run for run in study.runs if run.masks and run.config.initial_topology not in CONSTRUCTED)
    masks = {masks_path(run.config): run.masks for run in lent}
    for path in (path for path, digest in masks.items() if saved["masks"].get(path, digest) != digest):
        raise UserError(
            f"mask file {path} is not the one that the study in workdir {store.root} was begun with: restore it, or "
            "choose another --workdir"
        )
    runs = {run.id: dataclasses.asdict(run.config) for run in study.runs}
    command = {"command": _command(), "settings": asked(grid)}
    return saved | {
        "runs": saved["runs"] | {run_id: config for run_id, config in runs.items() if run_id not in saved["runs"]},
        "masks": saved["masks"] | masks,
        "commands": saved["commands"] + ([] if plain(command) in saved["commands"] else [command]),
    }, len(runs.keys() - saved["runs"].keys())


def enter(store: Store, grid: Grid, study: Study) -> None:
    """Write the runs of a study into config.json. Raises UserError as `extended` does."""
    with store.alone():
        config, _ = extended(store, grid, study)
        if plain(config) != store.read_config():
            store.write_config(config)
