"""A finished run of fewer epochs as the beginning of a longer one, where it is: more epochs cost only what is new."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparse_jax.config import RunConfig
from sparse_jax.recipes import NATURES
from sparse_jax.study.grid import Run, digest
from sparse_jax.study.store import Store
from sparse_jax.training.compaction import compacted
from sparse_jax.training.snapshot import Snapshot, read_newest
from sparse_jax.training.state import RunState
from sparse_jax.values import show

# setting -> the values with which the first steps of a run do not depend on how many follow
_WITHOUT_COURSE = {
    "lr_schedule": ("constant",),
    "drop_schedule": (None, "constant"),
    "density_schedule": (None, "constant"),
    "stop_fraction": (None, 1),
    "importance_pruning": (None, 0),
}


def course(config: RunConfig) -> str | None:
    """The setting by which the first steps of a run depend on how many follow, as its flag; None if none does."""
    for name, values in _WITHOUT_COURSE.items():
        if getattr(config, name) not in values:
            return f"--{name}={show(getattr(config, name))}"
    return None if NATURES[config.method].count in ("constant", "accuracy") else f"--method={config.method}"


class Shorter:
    """The finished runs of a store that differ from a run in having fewer epochs only."""

    def __init__(self, store: Store, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """`saved` are the configurations of all runs of the store by run id, as config.json has them."""
        self._store, self._by_settings = store, {}
        for run_id, config in saved.items():
            self._by_settings.setdefault(_settings(config), {})[run_id] = config["epochs"]

    def of(self, run: Run) -> tuple[int, str | None]:
        """Epochs and id of the longest that a run can continue; 0 and None if there is none."""
        before = {} if course(run.config) else self._alike(run)
        finished = self._store.done(before, failed=False)
        return max(((before[run_id], run_id) for run_id in finished), default=(0, None))

    def notice(self, runs: Iterable[Run]) -> str | None:
        """What keeps runs from continuing shorter ones that are there."""
        courses = {found for run in runs if (found := course(run.config)) and self._alike(run)}
        if not courses:
            return None
        return f"runs of fewer epochs are not continued, as {' and '.join(sorted(courses))} goes by the whole training"

    def _alike(self, run: Run) -> dict[str, int]:
        """The runs that have fewer epochs and are alike in everything else, with their epochs."""
        alike = self._by_settings.get(_settings(dataclasses.asdict(run.config)), {})
        return {run_id: epochs for run_id, epochs in alike.items() if 0 < epochs < run.config.epochs}


def _settings(config: Mapping[str, Any]) -> str:
    """What runs that differ in their epochs only have in common."""
    return digest({name: value for name, value in config.items() if name != "epochs"})


class Ended(NamedTuple):
    """The end of some finished runs, which others continue."""

    step: int
    state: RunState  # with a leading axis, in the order of the runs
    flops: list[int]  # by run


def load(store: Store, results: Mapping[str, Mapping[str, Any]], begun: RunState, steps: int) -> Ended | None:
    """The last checkpoints of finished runs of equal length, put together; None unless all are whole and fit.

    Args:
      store: of the runs.
      results: theirs by run id, in the order of the lanes.
      begun: shapes and dtypes of the state at the first step.
      steps: that they made.
    """
    read = functools.cache(lambda group: read_newest(store.checkpoints(group), lambda meta: True))
    lanes: list[tuple[Snapshot, int]] = []
    for run_id, result in results.items():
        snapshot = read(result["group"]) if store.checkpoints(result["group"]).is_dir() else None
        if snapshot is None or snapshot.step != steps or run_id not in snapshot.meta["runs"]:
            return None
        lanes.append((snapshot, snapshot.meta["runs"].index(run_id)))
    slots = lanes[0][0].meta["slots"]
    like = compacted(begun, slots)
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like)}
    for snapshot, _ in lanes:
        if snapshot.meta["slots"] != slots or snapshot.leaves.keys() != wanted.keys():
            return None
    found = {path: jnp.stack([snapshot.leaves[path][lane] for snapshot, lane in lanes]) for path in wanted}
    if any((found[path].shape, found[path].dtype) != (leaf.shape, leaf.dtype) for path, leaf in wanted.items()):
        return None
    state = jax.tree_util.tree_map_with_path(lambda path, _: found[jax.tree_util.keystr(path)], like)
    return Ended(steps, state, [snapshot.meta["flops"][lane] for snapshot, lane in lanes])
