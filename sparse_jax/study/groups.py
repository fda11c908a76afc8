"""Which runs of a cohort train together: decided when they begin, and remembered, so that they go on together."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparse_jax.study.extension import Shorter
from sparse_jax.study.grid import Cohort, Run
from sparse_jax.study.store import Store


class Members(NamedTuple):
    """The runs of a group, and where they come from."""

    id: str
    runs: tuple[Run, ...]
    shorter: tuple[str, ...]  # the finished runs, one each, that they continue; none if they begin at step 0


def unfinished(cohort: Cohort, store: Store, shorter: Shorter, done: frozenset[str], most: int) -> list[Members]:
    """The groups of a cohort that have something left to train; new ones are remembered in the store.

    A group that was begun goes on as it is, if the study has all its runs and they can train together here. All other
    runs form new groups and begin anew, those that continue runs of fewer epochs apart from those that do not.

    Args:
      cohort: its lock has to be held.
      store: of the study.
      shorter: of the study.
      done: the runs that are not to be trained.
      most: runs that can train together.
    """
    saved, by_id = store.read_groups(cohort.id), {run.id: run for run in cohort.runs}
    begun = {
        name: ids
        for name, ids in saved.items()
        if by_id.keys() >= {*ids} and not done.issuperset(ids) and len(ids) <= most
    }
    sources = {run.id: shorter.of(run) for run in cohort.runs if run.id not in done}
    taken, starts = set().union(*begun.values()), {}
    for run_id, (epochs, _) in sources.items():
        if run_id not in taken:
            starts.setdefault(epochs, []).append(run_id)
    parts = [part for ids in starts.values() for part in _parts(ids, most)]
    names = (f"{cohort.id}-{i}" for i in itertools.count())
    free = (name for name in names if name not in saved and not store.checkpoints(name).exists())
    new = {next(free): part for part in parts}
    if new:
        store.write_groups(cohort.id, saved | new)
    return [
        Members(name, tuple(by_id[run_id] for run_id in ids), _same(ids, sources))
        for name, ids in (begun | new).items()
    ]


def _same(ids: list[str], sources: Mapping[str, tuple[int, str | None]]) -> tuple[str, ...]:
    """The runs that a group continues, if each continues one and all of them the same number of epochs."""
    found = [sources.get(run_id, (0, None)) for run_id in ids]
    return tuple(source for _, source in found if source) if len({epochs for epochs, _ in found}) == 1 else ()


def _parts(runs: Sequence[str], most: int) -> list[Sequence[str]]:
    """As few parts as possible of at most so many runs, of about the same size."""
    size = -(-len(runs) // -(-len(runs) // most))
    return [runs[start : start + size] for start in range(0, len(runs), size)]
