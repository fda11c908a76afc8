"""The networks of a search: those that it starts from, and those that are compared at its end, kept as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.search.files import load_arrays, save_arrays
from sparse_jax.search.safs_plan import Pipeline
from sparse_jax.search.safs_work import NETWORKS, End, Sparse, Work, begin, chosen, pruned, unmasked, untuned
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


def start_networks(work: Work) -> list[Start]:
    """The dense network of every pipeline, and the sparse one: the dense one pruned, or one that its method trains.

    Raises:
      StoppedError: it was interrupted.
      UserError: one has diverged.
    """
    plan = work.plan
    dense = _kept(work, DENSE, [_Training(one, DENSE, one.dense, _dense(work, one)) for one in plan.pipelines])
    if plan.prunes:
        masks = [pruned(one.run, trained.network["params"]) for one, trained in zip(plan.pipelines, dense, strict=True)]
        networks = dense
    else:
        networks = _kept(work, START, [_Training(one, START, one.start, _sparse(work, one)) for one in plan.pipelines])
        masks = [trained.network["masks"] for trained in networks]
    for pipeline, *both in zip(plan.pipelines, dense, networks, strict=True):
        if any(trained.diverged for trained in both):
            raise UserError(
                f"the network that {pipeline.id} starts from has diverged: choose a smaller --learning_rate, and "
                "another --workdir"
            )
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
            begun = begin(work.plan, pipeline, pipeline.final, start.sparse, end)
            trainings.append(_Training(pipeline, column, pipeline.final, begun))
    trained = iter(_kept(work, "the end", trainings))
    for columns, own in zip(ends, found, strict=True):
        own.update({column: next(trained) for column in columns})
    return found


def _dense(work: Work, pipeline: Pipeline) -> HyperParams:
    run = pipeline.dense
    return begin(work.plan, pipeline, run, Sparse({}, unmasked(run)), _default(work, run))


def _sparse(work: Work, pipeline: Pipeline) -> HyperParams:
    return hyper_params(pipeline.start)._replace(chosen=chosen(work.plan, _default(work, pipeline.start)))


def _default(work: Work, run: Run) -> End:
    return End(work.plan.default, False, untuned(run))


def _variables(trained: Trained) -> dict[str, Any]:
    return {name: trained.network[name] for name in ("params", "model_state")}


class _Training(NamedTuple):
    """A network that is read where it is in a file, else trained and written there."""

    pipeline: Pipeline
    name: str  # of the network
    run: Run
    begun: HyperParams

    def path(self, work: Work) -> Path:
        return work.workdir / NETWORKS / f"{self.name}-{self.pipeline.id}.npz"


def _kept(work: Work, stage: str, trainings: Sequence[_Training]) -> list[Trained]:
    """The networks of trainings, side by side where they have one program."""
    (work.workdir / NETWORKS).mkdir(exist_ok=True)
    by_program: dict[SideBySide, list[_Training]] = {}
    for one in trainings:
        by_program.setdefault(work.side_by_side(one.run), []).append(one)
    line = f"{stage}: {len(trainings)} networks, {trainings[0].run.config.epochs} epochs"
    found = {}
    for program, own in by_program.items():
        found |= _of_program(work, line, program, own)
    return [found[one.path(work)] for one in trainings]


def _of_program(work: Work, line: str, program: SideBySide, trainings: Sequence[_Training]) -> dict[Path, Trained]:
    like = _like(program, trainings[0].begun)
    paths = [one.path(work) for one in trainings]
    found = {path: network for path in paths if (network := _read(path, like)) is not None}
    work.meter.advance(line, len(found) * trainings[0].run.config.epochs)
    for some in program.portions([one for one in trainings if one.path(work) not in found]):
        trained = program.train([one.begun for one in some], work.watch(line), keep=True)
        for one, network in zip(some, trained, strict=True):
            _write(one.path(work), network)
            found[one.path(work)] = network
    return found


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
