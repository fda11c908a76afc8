"""The networks of a search: those that it starts from, and those that are compared at its end, kept as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sparse_jax.search.files import load_arrays, save_arrays
from sparse_jax.search.safs_plan import Pipeline
from sparse_jax.search.safs_work import NETWORKS, Sparse, Tuned, Work, begin, chosen, pruned, unmasked, untuned
from sparse_jax.search.side_by_side import SideBySide, Trained
from sparse_jax.study.grid import Run
from sparse_jax.study.group import hyper_params
from sparse_jax.training.checkpoint import by_path
from sparse_jax.training.cohort import stack
from sparse_jax.training.state import HyperParams

DENSE, START = "dense", "start"  # the networks of the beginning
SCORE = "score."  # before what else is known of a network, in its file
_SCORES = {"accuracy": float, "loss": float, "diverged": bool, "epochs": np.int32, "seconds": float}


class Start(NamedTuple):
    """What a pipeline starts from."""

    dense: Trained
    sparse: Sparse


class End(NamedTuple):
    """A network at the end of a pipeline."""

    operators: tuple[int, ...]  # indices, one a layer
    scaled: bool  # whether α and β are trained
    tuned: Tuned


def start_networks(work: Work) -> list[Start]:
    """The dense network of every pipeline, and the sparse one: the dense one pruned, or one that its method trains.

    Raises:
      StoppedError: it was interrupted.
    """
    plan = work.plan
    dense = _kept(work, DENSE, [(one, DENSE, one.dense, _dense(work, one)) for one in plan.pipelines])
    if plan.prunes:
        masks = [pruned(one.run, trained.network["params"]) for one, trained in zip(plan.pipelines, dense, strict=True)]
        networks = dense
    else:
        networks = _kept(work, START, [(one, START, one.start, _sparse(work, one)) for one in plan.pipelines])
        masks = [trained.network["masks"] for trained in networks]
    sparse = [Sparse(_variables(trained), own) for trained, own in zip(networks, masks, strict=True)]
    return [Start(*both) for both in zip(dense, sparse, strict=True)]


def final_networks(work: Work, starts: Sequence[Start], ends: Sequence[dict[str, End]]) -> list[dict[str, Trained]]:
    """The networks at the end of every pipeline, by column.

    Args:
      work: the search.
      starts: by pipeline.
      ends: by pipeline and column.

    Raises:
      StoppedError: it was interrupted.
    """
    found: list[dict[str, Trained]] = [{} for _ in starts]
    trainings = []
    for pipeline, start, columns in zip(work.plan.pipelines, starts, ends, strict=True):
        for column, end in columns.items():
            begun = begin(work.plan, pipeline.final, start.sparse, *end)
            trainings.append((pipeline, column, pipeline.final, begun))
    trained = iter(_kept(work, "the end", trainings))
    for columns, own in zip(ends, found, strict=True):
        own.update({column: next(trained) for column in columns})
    return found


def _dense(work: Work, pipeline: Pipeline) -> HyperParams:
    return begin(work.plan, pipeline.dense, Sparse({}, unmasked(pipeline.dense)), *_default(work, pipeline.dense))


def _sparse(work: Work, pipeline: Pipeline) -> HyperParams:
    return hyper_params(pipeline.start)._replace(chosen=chosen(work.plan, *_default(work, pipeline.start)))


def _default(work: Work, run: Run) -> End:
    return End(work.plan.default, False, untuned(run))


def _variables(trained: Trained) -> dict[str, Any]:
    return {name: trained.network[name] for name in ("params", "model_state")}


def _kept(work: Work, stage: str, trainings: Sequence[tuple[Pipeline, str, Run, HyperParams]]) -> list[Trained]:
    """The networks of trainings of one configuration, read where they are in files, else trained and written there.

    A training has a pipeline, the name of its network, its run and what it begins with.
    """
    folder, run = work.workdir / NETWORKS, trainings[0][2]
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}-{pipeline.id}.npz" for pipeline, name, _, _ in trainings]
    program = work.side_by_side(run)
    like = _like(program, trainings[0][3])
    found = {path: network for path in paths if (network := _read(path, like)) is not None}
    missing = [(path, begun) for path, (_, _, _, begun) in zip(paths, trainings, strict=True) if path not in found]
    line = f"{stage}: {len(trainings)} networks, {run.config.epochs} epochs"
    work.meter.advance(line, len(found) * run.config.epochs)
    for first in range(0, len(missing), program.width):
        some = missing[first : first + program.width]
        trained = program.train([begun for _, begun in some], work.watch(line), keep=True)
        for (path, _), one in zip(some, trained, strict=True):
            _write(path, one)
            found[path] = one
    return [found[path] for path in paths]


def _like(program: SideBySide, hyper: HyperParams) -> dict[str, Any]:
    """The shapes of a network of a program."""
    stacked = stack([hyper], program.width, program.mesh)
    state = jax.eval_shape(program.cohort.init, stacked, program.data)
    whole = {"params": state.params, "model_state": state.model_state, "masks": state.topology.masks}
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), whole)


def _write(path: Path, trained: Trained) -> None:
    scores = {f"{SCORE}{name}": np.asarray(getattr(trained, name), kind) for name, kind in _SCORES.items()}
    save_arrays(path, dict(by_path(trained.network)) | scores)


def _read(path: Path, like: dict[str, Any]) -> Trained | None:
    scores = {f"{SCORE}{name}": np.empty((), kind) for name, kind in _SCORES.items()}
    arrays = load_arrays(path, dict(by_path(like)) | scores)
    if arrays is None:
        return None
    leaves = [arrays[name] for name, _ in by_path(like)]
    values = [arrays[name].item() for name in scores]
    return Trained(*values, jax.tree.unflatten(jax.tree.structure(like), leaves))
