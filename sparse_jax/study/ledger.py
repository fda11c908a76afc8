"""config.json: every run that a workdir was asked for, with its settings. A workdir grows, and no run of it changes."""

import dataclasses
import shlex
import sys
from typing import Any

from sparse_jax.config import StudyConfig, settings
from sparse_jax.errors import UserError
from sparse_jax.flags import Grid
from sparse_jax.study.grid import Study
from sparse_jax.study.sources import Known
from sparse_jax.study.store import Store

EMPTY = {"runs": {}, "sources": {}, "data": {}, "sessions": [], "commands": []}


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
    lent, before = _lent(study), saved["sources"]
    for name in lent.keys() & before.keys():
        if before[name]["digest"] == lent[name]["digest"]:
            continue
        raise UserError(
            f"{name} is not what the study in workdir {store.root} was begun with, then {before[name]['path']}: "
            "restore it, or choose another --workdir"
        )
    runs = {run.id: dataclasses.asdict(run.config) for run in study.runs}
    command = {"command": _command(), "settings": asked(grid)}
    return saved | {
        "runs": saved["runs"] | {run_id: config for run_id, config in runs.items() if run_id not in saved["runs"]},
        "sources": lent | before,
        "commands": saved["commands"] + ([] if plain(command) in saved["commands"] else [command]),
    }, len(runs.keys() - saved["runs"].keys())


def sources(saved: dict[str, Any] | None) -> Known:
    """What config.json says of the patterns by which runs named other runs and files."""
    found = (saved or {}).get("sources")
    return found if isinstance(found, dict) else {}


def _lent(study: Study) -> dict[str, dict[str, str]]:
    """Name -> where it leads, and the digest of what is there: of masks, or of a trained network."""
    found = {}
    for run in study.runs:
        if run.lent.masks:
            found[run.lent.masks.name] = {"path": run.lent.masks.path, "digest": run.masks}
        if run.lent.weights:
            digest = run.lent.lender.result["digest"]
            found[run.lent.weights.name] = {"path": run.lent.weights.path, "digest": digest}
    return found


def enter(store: Store, grid: Grid, study: Study) -> None:
    """Write the runs of a study into config.json. Raises UserError as `extended` does."""
    with store.alone():
        config, _ = extended(store, grid, study)
        if plain(config) != store.read_config():
            store.write_config(config)
