"""A finished run on disk: its settings and its result. Imports no jax."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.config import RunConfig
from sparse_jax.errors import UserError
from sparse_jax.study.store import Store

NAME_A_RUN = "name the folder of a finished run, WORKDIR/runs/RUN"
AGAIN = "train it again, in another --workdir"
NAMED = 3  # of the runs that a message lists


class FinishedRun(NamedTuple):
    """A finished run on disk."""

    path: str  # as the user wrote it
    store: Store
    id: str
    config: RunConfig
    result: dict  # of result.json
    data: dict[str, str]  # digests of the data sets of its study, by name


def lost(place: FinishedRun, why: str) -> UserError:
    """The error for weights of a run that cannot be read."""
    root = place.store.root / "checkpoints"
    return UserError(f"the checkpoint with the weights of {place.path} is {why}: restore {root}, or {AGAIN}")


def find(path: str) -> FinishedRun:
    """The finished run at a path. Reads no weights, and computes nothing.

    Raises:
      UserError: there is none; one line that says what to do.
    """
    try:
        folder = Path(path).expanduser().resolve()
        store, known = Store(folder.parent.parent), folder.is_dir()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read: {error}; {NAME_A_RUN}") from None
    if is_workdir(folder):
        raise UserError(f"{path} is a workdir: {_choice(Store(folder))}")
    if folder.parent.name != "runs" or not (store.root / "config.json").is_file():
        raise UserError(f"{path} is {'no run' if known else 'not there'}: {NAME_A_RUN}")
    saved, result = store.read_config(), store.read_result(folder.name)
    runs = saved.get("runs") or {}
    if folder.name not in runs:
        raise UserError(f"{path} is no run of {store.root}: {_choice(store)}")
    if result is None:
        failed = store.done([folder.name], failed=True)
        state, more = ("ended with an error", " with --retry_failed") if failed else ("is not finished", "")
        raise UserError(f"{path} {state}: the command that began its study continues it{more}")
    return FinishedRun(path, store, folder.name, _config(path, runs[folder.name]), result, saved.get("data") or {})


def is_workdir(folder: Path) -> bool:
    """Whether a study was begun in a folder."""
    return (folder / "config.json").is_file() and (folder / "runs").is_dir()


def find_all(path: str) -> list[FinishedRun]:
    """The finished runs of a workdir, in the order in which they were asked for.

    Raises:
      UserError: it has none, or they are of another version.
    """
    store = Store(Path(path).expanduser().resolve())
    saved, results = store.read_config(), store.read_results()
    known = {name: values for name, values in (saved.get("runs") or {}).items() if name in results}
    if not known:
        raise UserError(f"{path} has no finished run yet: the command that began it continues it")
    return [
        FinishedRun(str(Path(path) / "runs" / name), store, name, _config(path, values), results[name],
                    saved.get("data") or {})
        for name, values in known.items()
    ]  # fmt: skip


def _choice(store: Store) -> str:
    """What of a workdir can be named."""
    runs = list(store.read_results())
    left = len(runs) - NAMED
    more = "" if left < 1 else " and one other" if left == 1 else f" and {left} others"
    finished = f"it has {', '.join(runs[:NAMED])}{more}" if runs else "it has none yet"
    return f"{NAME_A_RUN}; {finished}"


def _config(path: str, values: dict[str, Any]) -> RunConfig:
    """The settings of a run as config.json has them, in which tuples are lists."""
    if values.keys() != {field.name for field in dataclasses.fields(RunConfig)}:
        raise UserError(f"{path} is a run of another version, with other settings: {AGAIN}")
    return RunConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
