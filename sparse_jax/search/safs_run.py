"""The host loop of a search for activation functions: its stages, one after the other, and the result at the end."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparse_jax.config import AUTO
from sparse_jax.data.arrays import Arrays
from sparse_jax.data.batches import Data
from sparse_jax.data.catalog import make_reader
from sparse_jax.data.splits import split
from sparse_jax.search.files import opened
from sparse_jax.search.records import Records
from sparse_jax.search.safs_networks import Start, final_networks, start_networks
from sparse_jax.search.safs_plan import Plan
from sparse_jax.search.safs_result import Ended, conclude
from sparse_jax.search.safs_stage1 import STAGE1, Operators, find_operators
from sparse_jax.search.safs_work import End, Work, learning_data, test_data, untuned
from sparse_jax.search.side_by_side import StoppedError
from sparse_jax.study.interrupt import INTERRUPTED, Interrupt
from sparse_jax.study.meter import Meter
from sparse_jax.study.provenance import origin
from sparse_jax.training.checkpoint import digest
from sparse_jax.training.hardware import Hardware, set_up

DEFAULT = "default"  # the column of the network whose activation functions are those that were asked for


def search(plan: Plan, interrupt: Interrupt) -> int:
    """Search, or continue what the workdir holds; the exit status of the program.

    Raises:
      UserError: for data that cannot be read, a workdir that is in use or another's (`files.opened`), or a storage that
        cannot be reached.
    """
    shared = None if plan.asked.search.storage == AUTO else _storage(plan, plan.workdir)  # before anything is written
    hardware = set_up(plan.place.host)
    arrays = make_reader(plan.place.host.data_dir)(plan.place.dataset)
    with opened(plan.place, origin(arrays, hardware) | {"lanes": hardware.lanes}) as workdir:
        storage = shared or _storage(plan, workdir)
        try:
            _searched(plan, hardware, interrupt, workdir, arrays, storage)
        except StoppedError:
            print(f"stopped and saved: the same command continues {plan.workdir}", file=sys.stderr)
            return INTERRUPTED
    return 0


def _storage(plan: Plan, workdir: Path) -> Any:
    """Where trials are kept, of Optuna, which only the second stage needs: None without one."""
    if not plan.asked.search.trials:
        return None
    from sparse_jax.search.storage import open_storage

    return open_storage(plan.asked.search.storage, workdir)


def _searched(
    plan: Plan, hardware: Hardware, interrupt: Interrupt, workdir: Path, arrays: Arrays, storage: Any
) -> None:
    """All stages. Raises StoppedError where somebody asked to stop."""
    config = plan.config
    sizes = {name: getattr(config, name) for name in ("train_size", "test_size", "validation_fraction")}
    parts = split(arrays, **sizes)
    data = learning_data(plan, parts)

    def read_test() -> Data:
        return test_data(data, parts)

    with Meter(0, _epochs(plan)) as meter:
        work = Work(plan, hardware, interrupt, workdir, data, digest(data), Records(workdir), meter, {})
        starts = start_networks(work)
        found, ends = _found(work, starts, storage)
        networks = final_networks(work, starts, ends)
    work.records.write_csv()
    conclude(work, Ended(starts, found, ends, networks), read_test)


def _found(work: Work, starts: Sequence[Start], storage: Any) -> tuple[list[Operators], list[dict[str, End]]]:
    """What both stages find: operators by pipeline, and the networks at the end by pipeline and column."""
    plan = work.plan
    program = work.side_by_side(plan.pipelines[0].candidate)
    found = find_operators(work, starts, program)
    ends = [
        {DEFAULT: End(plan.default, False, usual), STAGE1: End(operators, False, usual)}
        for operators, usual in zip(found, (untuned(one.final) for one in plan.pipelines), strict=True)
    ]
    if storage is None:
        return found, ends
    from sparse_jax.search.safs_stage2 import tune

    tuned = tune(work, starts, found, program, storage)
    return found, [first | second for first, second in zip(ends, tuned, strict=True)]


def _epochs(plan: Plan) -> int:
    """Of all trainings together."""
    search, count = plan.asked.search, len(plan.pipelines)
    start, candidate, final = plan.epochs
    per_pipeline = start * (1 if plan.prunes else 2) + candidate * (plan.tried + 2 * search.trials)
    return count * (per_pipeline + final * (len(plan.columns) - 1))
