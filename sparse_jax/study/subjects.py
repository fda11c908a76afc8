"""Trained networks as an examination takes them: every layer as a dense kernel with a mask, on data of their own."""

import functools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.sparse import csr_array

from sparse_jax.config import RunConfig
from sparse_jax.data.arrays import Arrays
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.splits import PARTS
from sparse_jax.errors import UserError
from sparse_jax.sparse.layer import LINKS
from sparse_jax.study.ablate import examined
from sparse_jax.study.evaluate import read_own
from sparse_jax.study.finished import FinishedRun
from sparse_jax.study.trained import Trained, load, matrix
from sparse_jax.study.transplant import dense_kernels
from sparse_jax.topology.masks import put
from sparse_jax.training.parts import links_of, rates_of
from sparse_jax.training.problem import Problem, make_problem
from sparse_jax.training.snapshot import Snapshot
from sparse_jax.training.state import HyperParams

MIXING_SEED = 0  # fixed: the same examples for all networks


class TrainedCohort(NamedTuple):
    """The runs whose networks share their programs, and what these need."""

    config: RunConfig
    problem: Problem  # every kernel has a mask
    runs: tuple[FinishedRun, ...]
    data: Data  # on the host; the training part comes first, mixed, so that its first examples are a sample of it
    sizes: tuple[int, int, int]  # examples for training, validation and test

    def rows(self, part: str) -> tuple[int, int]:
        """The rows of a part of the data."""
        ends = np.cumsum([0, *self.sizes])
        at = PARTS.index(part)
        return int(ends[at]), int(ends[at + 1])

    @property
    def kernel_bytes(self) -> int:
        """Of all kernels of one network."""
        return 4 * sum(math.prod(shape) for shape in self.problem.kernels.values())


def cohorts_of(
    runs: Iterable[FinishedRun], read: Callable[[str], Arrays]
) -> tuple[list[TrainedCohort], list[tuple[str, str]]]:
    """The runs sorted by what they share, and those left out with the reason: their data are gone or others."""
    alike: dict[tuple, list[FinishedRun]] = {}
    skipped = []
    for run in runs:
        if run.result.get("status") == "diverged":
            skipped.append((run.path, "it diverged"))
        else:
            alike.setdefault((examined(run.config), run.data.get(run.config.dataset)), []).append(run)
    found = []
    for (config, _), members in alike.items():
        try:
            found.append(_cohort(config, members, read))
        except UserError as error:
            skipped += [(run.path, str(error)) for run in members]
    return found, skipped


def _cohort(config: RunConfig, members: list[FinishedRun], read: Callable[[str], Arrays]) -> TrainedCohort:
    own = read_own(members[0], read)
    sizes = own.parts.train, own.parts.validation, own.parts.test
    problem = make_problem(config, own.info, sizes)
    mixed = np.random.default_rng(MIXING_SEED).permutation(own.parts.train)
    order = np.concatenate([mixed, np.arange(own.parts.train, len(own.parts.y))])
    data = Data(own.parts.x[order], own.parts.y[order], own.normalization, levels_of(own.parts.x[: own.parts.train]))
    return TrainedCohort(config, problem, tuple(members), data, sizes)


class Subject(NamedTuple):
    """A trained network."""

    run: FinishedRun
    hyper: HyperParams  # it begins with the network; on the host
    active_fan: bool  # whether its initialiser counted active connections only

    def weights(self, name: str) -> np.ndarray:
        """A kernel, 0 where there is no connection."""
        *parents, last = name.split("/")
        return functools.reduce(lambda tree, key: tree[key], parents, self.hyper.network["params"])[last]


def admit(
    cohort: TrainedCohort, run: FinishedRun, which: str, rate: float, read: Callable[[Path], Snapshot | None]
) -> Subject:
    """The network of a run of a cohort, to be trained on at `rate` times the learning rate it was trained at.

    Raises:
      UserError: its checkpoint is gone, damaged or too large for dense kernels, or it has no best network.
    """
    trained = load(run, which, read)
    kernels, config = dense_kernels(trained), run.config
    masks = {name: _mask(trained, name, kernel.shape) for name, kernel in kernels.items()}
    state = {name: value for name, value in trained.model_state.items() if name != LINKS}
    params = put(trained.params, {name: np.where(masks[name], kernel, 0) for name, kernel in kernels.items()})
    hyper = HyperParams(
        seed=np.uint32(config.seed), weights_seed=np.uint32(config.seed), start={}, counts={},
        rates=rates_of(cohort.config), masks=masks, network=_plain({"params": params, "model_state": state}),
        learning_rate=np.float32(rate * config.learning_rate), weight_decay=np.float32(config.weight_decay),
    )  # fmt: skip
    return Subject(run, hyper, config.init_fan == "active")


def _plain(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def _mask(trained: Trained, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """bool[...]: the connections of a layer, be their weight zero."""
    if name in trained.masks:
        return np.asarray(trained.masks[name])
    if name not in links_of(trained.model_state):
        return np.ones(shape, bool)
    of_layer = matrix(trained, name)
    entries = np.ones(of_layer.nnz, bool), of_layer.indices, of_layer.indptr
    return csr_array(entries, shape=of_layer.shape).toarray().T
