"""The network of a finished run, from the checkpoint that its workdir keeps."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.sparse import csr_array

from sparse_jax.config import RunConfig
from sparse_jax.data.arrays import DatasetInfo
from sparse_jax.data.splits import sizes
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import Shapes
from sparse_jax.sparse.layer import KERNEL, LINKS
from sparse_jax.sparse.links import Links
from sparse_jax.study.finished import AGAIN, FinishedRun, lost
from sparse_jax.topology.masks import select
from sparse_jax.training import checkpoint
from sparse_jax.training.compaction import capacities
from sparse_jax.training.parts import links_of
from sparse_jax.training.problem import Problem, make_problem
from sparse_jax.training.snapshot import Snapshot, read_newest

FINAL, BEST = "final", "best"
_KEY = re.compile(r"\['([^']*)'\]|\.(\w+)")
_MASKS = {FINAL: re.compile(r"\.topology\.masks\['(.+)'\]"), BEST: re.compile(r"\.best\.masks\['(.+)'\]")}


class Trained(NamedTuple):
    """A trained network."""

    place: FinishedRun
    which: str  # FINAL or BEST
    step: int  # of the checkpoint, which is that of the end of training
    kernels: Shapes  # all of them, in the order of the layers
    params: Any  # as evaluated: the average if the run has one
    model_state: Any  # the model's other variables; where connections are, of what is executed sparsely
    masks: dict[str, np.ndarray]  # bool in the kernel's shape, of the layers that are executed with a mask

    @property
    def config(self) -> RunConfig:
        return self.place.config

    @property
    def connections(self) -> dict[str, int]:
        """By layer that has a mask or is executed sparsely; every other layer has them all."""
        counts = {name: int(links.input_starts[-1]) for name, links in links_of(self.model_state).items()}
        return counts | {name: int(mask.sum()) for name, mask in self.masks.items()}


def read_group(folder: Path) -> Snapshot | None:
    """The newest whole checkpoint of a group of runs; None if there is none."""
    return read_newest(folder, lambda meta: True)


def load(place: FinishedRun, which: str, read: Callable[[Path], Snapshot | None] = read_group) -> Trained:
    """The network of a finished run.

    Args:
      place: of `find`.
      which: FINAL, or BEST for that of highest validation accuracy.
      read: `read_group`, or one that remembers, for many runs of a group.

    Raises:
      UserError: its checkpoint is gone, damaged, of an earlier step or version, or it has no best network.
    """
    snapshot = _snapshot(place, read)
    lane = snapshot.meta["runs"].index(place.id)
    prefix = ".average" if any(path.startswith(".average.") for path in snapshot.leaves) else ""
    if which == BEST:
        if ".best.correct" not in snapshot.leaves:
            raise UserError(f"{place.path} has no best network, as it has no validation part: use --which={FINAL}")
        prefix = ".best"
        if snapshot.leaves[".best.correct"][lane] < 0:
            raise UserError(f"{place.path} has no best network: none was evaluated; use --which={FINAL}")
    params = _tree(snapshot, f"{prefix}.params", lane)
    model_state = _with_links(_tree(snapshot, f"{prefix}.model_state", lane))
    sparse = links_of(model_state)
    of_layers = _MASKS[which]
    masks = {match[1]: leaf[lane] for path, leaf in snapshot.leaves.items() if (match := of_layers.fullmatch(path))}
    masks = {name: mask for name, mask in masks.items() if name not in sparse}
    kernels = {name: tuple(shape) for name, shape in snapshot.meta["kernels"].items()}
    return Trained(place, which, snapshot.step, kernels, params, model_state, masks)


def _snapshot(place: FinishedRun, read: Callable[[Path], Snapshot | None]) -> Snapshot:
    """The last checkpoint of the group in which the run was trained."""
    root, reasons = place.store.root / "checkpoints", []
    group = place.store.checkpoints(place.result["group"]) if "group" in place.result else root
    with _warnings_kept(reasons):
        if group != root and group.is_dir():
            snapshot = read(group)
            if snapshot is not None and place.id in (snapshot.meta.get("runs") or ()):
                return _last(place, snapshot)
    why = f"damaged ({reasons[0]})" if reasons else "gone"
    raise lost(place, why)


def _last(place: FinishedRun, snapshot: Snapshot) -> Snapshot:
    """The checkpoint, if it is that of the end of training. Raises UserError else."""
    if not {"kernels", "slots"} <= snapshot.meta.keys() or "steps" not in place.result:
        raise UserError(f"the checkpoint of {place.path} is of an earlier version: {AGAIN}")
    if snapshot.step < (steps := place.result["steps"]):
        raise UserError(
            f"the last checkpoint of {place.path} is gone or damaged, and an earlier one is of step "
            f"{snapshot.step:,} of {steps:,}: restore it, or {AGAIN}"
        )
    return snapshot


@contextlib.contextmanager
def _warnings_kept(messages: list[str]) -> Iterator[None]:
    """Collect what is said of checkpoints that are passed over: other groups do not matter, and one line does."""

    def collect(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger(checkpoint.__name__)
    logger.addFilter(collect)
    try:
        yield
    finally:
        logger.removeFilter(collect)


def _tree(snapshot: Snapshot, prefix: str, lane: int) -> dict[str, Any]:
    """What lies under a path, as a tree of dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in snapshot.leaves.items():
        if path.startswith((f"{prefix}[", f"{prefix}.")):
            *parents, last = (item or field for item, field in _KEY.findall(path.removeprefix(prefix)))
            node = tree
            for key in parents:
                node = node.setdefault(key, {})
            node[last] = leaf[lane]
    return tree


def _with_links(model_state: dict[str, Any]) -> dict[str, Any]:
    if LINKS not in model_state:
        return model_state
    links = {layer: {KERNEL: Links(**views[KERNEL])} for layer, views in model_state[LINKS].items()}
    return model_state | {LINKS: links}


def problem_of(trained: Trained, info: DatasetInfo) -> Problem:
    """The static facts of a run, given its own data set."""
    config = trained.config
    parts = sizes(info, config.train_size, config.test_size, config.validation_fraction)
    return make_problem(config, info, parts)._replace(slots=capacities(trained.model_state))


def matrix(trained: Trained, name: str) -> csr_array:
    """W[outputs, inputs] of a dense layer, so that y = W x, with an entry for each connection, be it zero."""
    kernel, links = select(trained.params, (name,))[name], links_of(trained.model_state)
    if name in links:
        of_layer, n = jax.tree.map(np.asarray, links[name]), int(links[name].input_starts[-1])
        parts = np.asarray(kernel)[of_layer.slots[:n]], of_layer.inputs[:n], of_layer.output_starts
        return csr_array(parts, shape=trained.kernels[name][::-1])
    weights = np.asarray(kernel).T
    outputs, inputs = np.nonzero(trained.masks[name].T if name in trained.masks else np.ones(weights.shape, bool))
    starts = np.searchsorted(outputs, np.arange(weights.shape[0] + 1))
    indices = (index.astype(np.int32) for index in (inputs, starts))  # a layer with a mask has less than 2^31 positions
    return csr_array((weights[outputs, inputs], *indices), shape=weights.shape)
