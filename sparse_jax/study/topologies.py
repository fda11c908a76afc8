"""The topologies that a path leads to: of a mask file or matrices, of a run, or of the runs of a workdir.

A finished run has its masks in a file; those of an unfinished one are in the checkpoints of its group. These are read
on the CPU, whatever it is that trains, and only they need jax.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.study.mask_file import load_masks, pairs_of
from sparse_jax.study.matrix_market import holds_matrices
from sparse_jax.study.store import MASKS, Store
from sparse_jax.topology.graph import Masks
from sparse_jax.topology.paths import layer_order, with_dense_layers

_SAVED_MASK = re.compile(r"\.topology\.masks\['(.+)'\]")
_SAVED_LINKS = re.compile(r"\.model_state\['links'\]\['(.+)'\]\['kernel'\]\.(outputs|input_starts)")
NO_MASKS = "no masks: a dense network has none"
SAVES = "let its study train on, it saves every --checkpoint_seconds and when it is stopped"


class Found(NamedTuple):
    """A topology on disk."""

    masks: Masks  # in natural order, `output` last
    kernels: Mapping[str, Any] | None  # shapes of all layers in order; None of masks by themselves
    step: int | None  # of the training, where that has not ended
    model: str | None  # None of masks by themselves

    @property
    def network(self) -> Masks:
        """The masks of all layers in order, those included that are dense."""
        return self.masks if self.kernels is None else with_dense_layers(self.kernels, self.masks, np.ones)

    @property
    def no_chain(self) -> str | None:
        """Why the layers are not one after the other, if that is known of the model."""
        outline = OUTLINES.get(self.model)
        return None if outline is None or outline.in_series else f"the layers of {self.model} are not in series"


class Runs(NamedTuple):
    """The runs of a workdir, or of one folder of its checkpoints."""

    topologies: dict[str, Found]
    dense: list[str]  # runs without masks
    waiting: list[str]  # unfinished runs without a checkpoint
    damaged: list[str]  # finished runs whose masks are gone or cannot be read


def find(path: str) -> Found | Runs:
    """What is at a path: a mask file, a folder of matrices, a run (its folder, there or to come), a workdir, or one of
    its checkpoints.

    Raises:
      UserError: there is no topology; one line that says what to do.
    """
    try:
        return _find(path, Path(path).expanduser())
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read: {error}; name a mask file, a run folder or a workdir") from None


def _find(path: str, folder: Path) -> Found | Runs:
    parent, workdir = folder.absolute().parent, folder.absolute().parent.parent
    if (folder / MASKS).is_file():
        return _finished(folder, Store(workdir).read_results().get(folder.absolute().name))
    if (folder / "result.json").is_file():
        result = Store(workdir).read_results().get(folder.absolute().name, {})
        raise UserError(f"{path} is a finished run with {_why_none(result)}")
    if parent.name == "runs" and not folder.is_file() and (workdir / "config.json").is_file():
        return _unfinished(path, Store(workdir), folder.absolute().name)
    if not folder.is_dir() or (not (folder / "runs").is_dir() and holds_matrices(folder)):
        return Found(_ordered(load_masks(folder)), None, None, None)
    if parent.name == "checkpoints":
        return _not_empty(path, _saved([folder], lambda run: True), f"{path} holds no usable checkpoint: {SAVES}")
    return _workdir(path, folder)


def _why_none(result: Mapping[str, Any]) -> str:
    if result.get("connections_by_layer"):
        return f"no {MASKS}: an earlier version trained it, or the file is gone; train it again"
    return f"{NO_MASKS}; name a sparse one"


def _finished(folder: Path, result: dict | None) -> Found:
    """The masks in the folder of a run, and what its result says of the layers without."""
    result = result or {}
    return Found(_ordered(load_masks(folder / MASKS)), result.get("kernels"), None, result.get("model"))


def _ordered(masks: Masks) -> Masks:
    return {name: masks[name] for name in layer_order(masks)}


def _unfinished(path: str, store: Store, run: str) -> Found:
    known = _planned(store)
    if run not in known:
        raise UserError(f"{path} is none of the {len(known)} runs in {store.root / 'config.json'}")
    nothing = f"{path} has neither a result nor a usable checkpoint: {SAVES}"
    return _not_empty(path, _saved(_groups(store), lambda name: name == run), nothing).topologies[run]


def _workdir(path: str, folder: Path) -> Runs:
    """The finished runs, then the others as their checkpoints have them."""
    store = Store(folder)
    results, with_masks, damaged = store.read_results(), {}, []
    for run, result in results.items():
        try:
            if (folder / "runs" / run / MASKS).is_file():
                with_masks[run] = _finished(folder / "runs" / run, result)
            elif result.get("connections_by_layer"):
                damaged.append(run)
        except UserError:
            damaged.append(run)
    unfinished = [run for run in _planned(store) if run not in results]
    saved = _saved(_groups(store) if unfinished else [], lambda run: run in unfinished)
    dense = [run for run in results if run not in with_masks and run not in damaged] + saved.dense
    waiting = [run for run in unfinished if run not in saved.topologies and run not in saved.dense]
    here = f"no finished run with a {MASKS} and no checkpoint of another"
    what = here if (folder / "runs").is_dir() else f"no {MASKS} and no runs"
    todo = SAVES if unfinished else "name a mask file, the folder of a sparse run, or a workdir"
    runs = Runs(with_masks | saved.topologies, dense, waiting, damaged)
    return _not_empty(path, runs, f"{path} holds {what}: {todo}")


def _not_empty(path: str, runs: Runs, nothing: str) -> Runs:
    if not runs.topologies:
        all_dense = runs.dense and not runs.waiting and not runs.damaged
        raise UserError(f"{path} has {NO_MASKS}; name a sparse run" if all_dense else nothing)
    return runs


def _planned(store: Store) -> Iterable[str]:
    """The runs of the study of a workdir, in its order."""
    return (store.read_config() or {}).get("runs") or []


def _groups(store: Store) -> list[Path]:
    return sorted(folder for folder in (store.root / "checkpoints").glob("*") if folder.is_dir())


def _runs_in(meta: dict) -> list[str]:
    if "runs" not in meta:
        raise ValueError("an earlier version wrote it, without the names of its runs")
    return meta["runs"]


def _saved(groups: Iterable[Path], wanted: Callable[[str], bool]) -> Runs:
    """The runs that are wanted, of the newest usable checkpoint of each group."""
    runs = Runs({}, [], [], [])
    if not groups:
        return runs
    import jax

    from sparse_jax.training.snapshot import read_newest

    jax.config.update("jax_platforms", "cpu")
    for group in groups:
        snapshot = read_newest(group, lambda meta: any(map(wanted, _runs_in(meta))))
        if snapshot is None:
            continue
        saved = {match[1]: leaf for path, leaf in snapshot.leaves.items() if (match := _SAVED_MASK.fullmatch(path))}
        for lane, run in enumerate(snapshot.meta["runs"]):
            if wanted(run) and saved:
                meta = snapshot.meta
                masks = {name: leaf[lane] for name, leaf in saved.items()} | _linked(snapshot, lane)
                runs.topologies[run] = Found(_ordered(masks), meta["kernels"], snapshot.step, meta.get("model"))
            elif wanted(run):
                runs.dense.append(run)
    return runs


def _linked(snapshot: Any, lane: int) -> dict[str, np.ndarray]:
    """The masks of what a run executes sparsely. Raises UserError for a layer too large for a mask."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for path, leaf in snapshot.leaves.items():
        if match := _SAVED_LINKS.fullmatch(path):
            found.setdefault(f"{match[1]}/kernel", {})[match[2]] = leaf[lane]
    return {name: pairs_of(**sides, shape=snapshot.meta["kernels"][name]).mask for name, sides in found.items()}
