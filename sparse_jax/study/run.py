"""A study from its grid to its table. Imports jax only when everything is known to be in order."""

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sparse_jax.config import ALONE, AUTO
from sparse_jax.data.catalog import Arrays, make_reader
from sparse_jax.flags import FAILED, Grid
from sparse_jax.study.estimate import estimate, in_words
from sparse_jax.study.grid import Study, dataset_label, digest, make_study
from sparse_jax.study.interrupt import INTERRUPTED, Interrupt
from sparse_jax.study.ledger import enter, extended, plain, sources
from sparse_jax.study.store import Store, open_store
from sparse_jax.study.summary import make_console, print_plan, print_summary
from sparse_jax.study.trackers import check

if TYPE_CHECKING:
    from sparse_jax.training.hosts import Hosts


def _workdir(grid: Grid) -> Path:
    if grid.study.workdir != AUTO:
        return Path(grid.study.workdir).expanduser()
    names = f"{dataset_label(grid.axes['dataset'][0])}-{grid.axes['model'][0]}"
    return Path("results") / f"{names}-{digest(plain(list(grid.axes.items())))}"


def _tell(study: Study) -> None:
    for notice in study.notices:
        print(f"note: {notice}", file=sys.stderr)


def _tell_of_growth(store: Store, study: Study, new: int) -> None:
    """Say what a workdir holds already, if it is to hold more."""
    before = store.read_config()
    if before is not None:
        print(
            f"note: the workdir has {len(before['runs']):,} runs; {new:,} of the {len(study.runs):,} asked for are new",
            file=sys.stderr,
        )


def train_study(grid: Grid) -> int:
    """Train a grid, or print its plan; the exit status of the program.

    Raises:
      UserError: for bad input. Nothing has been written then, but for what only the devices tell: how many there are,
        whether this jax computes rightly on them, and with how many lanes the workdir was begun.
    """
    interrupt = Interrupt()
    check(grid.study.tracker)
    console, workdir = make_console(), _workdir(grid)
    store = Store(workdir.absolute())
    study = make_study(grid, sources(store.read_config()))
    _, new = extended(store, grid, study)
    if grid.study.dry_run:
        _tell(study)
        print_plan(console, study)
        _print_course(study, store, workdir)
        return 0
    read = make_reader(grid.study.data_dir)
    if new:
        for name in reversed(grid.axes["dataset"]):  # the first one is read last, and stays
            read(name)
    prepare = partial(_prepare, grid, study, new, workdir)
    # of several processes only the one that leads may write, and nobody knows yet which one that is
    store = prepare() if grid.study.coordinator == ALONE else None
    from sparse_jax.study.together import follow, lead
    from sparse_jax.training.hardware import configure
    from sparse_jax.training.hosts import connect

    configure(grid.study)
    hosts = connect(grid.study, interrupt)
    if not hosts.leads:
        return follow(study, grid.study, hosts, read)
    return lead(hosts, lambda: _train(grid, study, store or prepare(), hosts, read, console, workdir))


def _prepare(grid: Grid, study: Study, new: int, workdir: Path) -> Store:
    """Say what is to be known of a study, and enter it into its workdir."""
    if new:
        _tell_of_growth(Store(workdir.absolute()), study, new)
    _tell(study)
    store = open_store(workdir)
    enter(store, grid, study)
    return store


def _train(
    grid: Grid, study: Study, store: Store, hosts: "Hosts", read: Callable[[str], Arrays], console: Console,
    workdir: Path,
) -> int:
    """Train a study that is in its workdir; the exit status."""
    from sparse_jax.study.execute import execute
    from sparse_jax.training.hardware import found

    outcome = execute(study, grid.study, store, hosts, found(grid.study, hosts.several), read)
    if outcome.stopped:
        print(f"stopped and saved: the same command continues {workdir}", file=sys.stderr)
        return INTERRUPTED
    return _conclude(console, workdir, store, study, outcome.held)


def _print_course(study: Study, store: Store, workdir: Path) -> None:
    """What would happen: how long, and where to."""
    ended = store.done((run.id for run in study.runs), failed=False)
    print(f"would write to {workdir}" + (f", which has {len(ended):,} of the runs" if ended else ""))
    if len(ended) == len(study.runs):
        print("nothing is left to train")
    elif (found := estimate(study, store)) is None:
        print("no estimate of time: no run of this study is known on the accelerator of this machine")
    else:
        print(f"about {in_words(found[0])}, {found[1]}")


def _conclude(console: Console, workdir: Path, store: Store, study: Study, held: dict[str, str]) -> int:
    """Say how a study stands whose worker has done its part, while others hold some cohorts; the exit status."""
    ids = [run.id for run in study.runs]
    finished, ended = store.done(ids, failed=False), store.done(ids, failed=True)
    if held:
        by = ", ".join(sorted(set(held.values())))
        print(f"nothing left to claim: {len(held)} of {len(study.cohorts)} cohorts are trained by {by}")
    else:
        print_summary(console, study, store.read_results())
        print(f"results: {workdir / 'results.csv'}; as a page: python launch/report.py {shlex.quote(str(workdir))}")
    if len(ended) < len(ids) and not held:
        print(f"{len(ids) - len(ended):,} of {len(ids):,} runs are left to the other shares")
    if len(finished) == len(ended):
        return 0
    count = f"{len(ended) - len(finished):,} runs failed"
    print(f"{count}, and runs/RUN/failure.json says why; --retry_failed trains them again", file=sys.stderr)
    return FAILED
