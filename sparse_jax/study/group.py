"""The runs of a cohort that train at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sparse_jax.study.fleet import Fleet
from sparse_jax.study.grid import Run
from sparse_jax.study.mask_file import Topology, as_mask, as_pairs
from sparse_jax.study.resolve import unchanged_masks
from sparse_jax.study.trained import read_group
from sparse_jax.study.transplant import trained_network
from sparse_jax.training.parts import rates_of
from sparse_jax.training.snapshot import Snapshot
from sparse_jax.training.state import HyperParams


class Group(NamedTuple):
    """The runs of a cohort that train at once, and what trains them."""

    id: str
    runs: tuple[Run, ...]
    shorter: tuple[str, ...]  # the finished runs of fewer epochs that these continue; else empty
    fleet: Fleet
    finished: frozenset[str]  # the runs that have results already, of an earlier session
    examples: np.ndarray  # int[classes], of the test part
    lanes: int  # runs that share an instruction
    session: int  # of config.json, in which this is trained


def hyper_params(run: Run, read: Callable[[Path], Snapshot | None] = read_group) -> HyperParams:
    """The dynamic settings of a run as arrays, and the masks and weights that it is given.

    Args:
      run: to be trained.
      read: of the checkpoints of other runs; one that remembers, for many runs.

    Raises:
      UserError: the file of its first masks has changed, or the weights that it begins with are gone.
    """
    config = run.config
    given = run.masks and not config.shuffle_masks
    masks = unchanged_masks(config, run.problem, run.lent, run.masks) if given else {}
    return HyperParams(
        seed=np.uint32(config.seed),
        weights_seed=np.uint32(run.lent.weights_seed(config.seed)),
        start={name: np.int32(count) for name, count in run.start.items()},
        counts={name: np.int32(count) for name, count in run.final.items()},
        rates=rates_of(config),
        masks=_executed(run, masks),
        network=trained_network(run, masks, read),
        learning_rate=np.float32(config.learning_rate),
        weight_decay=np.float32(config.weight_decay),
    )


def _executed(run: Run, masks: Topology) -> dict[str, np.ndarray]:
    """Masks as a run executes them: bool arrays, or int32[2, connections]."""
    slots = run.problem.slots
    return {name: np.stack(as_pairs(mask)[:2]) if name in slots else as_mask(mask) for name, mask in masks.items()}


def lane_of(tree: Any, lane: int) -> Any:
    """What belongs to one run of a tree with a leading axis of runs."""
    return jax.tree.map(lambda leaf: leaf[lane], tree)
