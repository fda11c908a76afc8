"""The course of an examination: cohort by cohort, chunk by chunk; what is known already is not done again."""

import functools
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sparse_jax.analysis.statistics import mean_interval
from sparse_jax.config import AblationConfig, StudyConfig
from sparse_jax.data.catalog import make_reader
from sparse_jax.data.splits import PARTS
from sparse_jax.errors import UserError
from sparse_jax.study.ablate import Experiment, layers_of, tell_skipped
from sparse_jax.study.ablations import CSV, add_experiments, area_of, name_of, read_experiments, write_csv
from sparse_jax.study.experiments import Chunk, conduct, make_lay_out, places_of
from sparse_jax.study.finished import FinishedRun
from sparse_jax.study.meter import Meter
from sparse_jax.study.rows import SETTINGS
from sparse_jax.study.store import open_store
from sparse_jax.study.subjects import Subject, TrainedCohort, admit, cohorts_of
from sparse_jax.study.summary import CONFIDENCE, make_console
from sparse_jax.study.trained import read_group
from sparse_jax.training.hardware import Hardware, set_up
from sparse_jax.training.snapshot import Snapshot
from sparse_jax.values import show, telling

MOST_LEFT_OUT = 20_000  # connections of a network of which each is left out once
SAVED_EVERY = 5.0  # seconds between two writings of what a chunk has found
COPIES = 16  # of the weights of a network that is examined: a score for each order, an edit each
TOO_LARGE = f"leave_one_out removes connections one by one, {MOST_LEFT_OUT:,} at most: --layers chooses some"
CAPTION = "mean accuracy in % while the connections go, over seeds ± half a 95 % interval"
EMPTY = "–"
TOLD = ("dataset", "model", "method", "activation", "sparsity", "epsilon", "initial_topology")  # if they vary
Skipped = list[tuple[str, str]]  # run, and why
LayOut = Callable[[Sequence[Subject]], Chunk]
Read = Callable[[Path], Snapshot | None]


def examine(runs: Sequence[FinishedRun], experiments: Sequence[Experiment], request: AblationConfig) -> int:
    """Do the experiments on the runs, where they are not done yet; the exit status.

    Raises:
      UserError: no run is left to examine; nothing has been written then.
    """
    left = {run.path: _missing(run, experiments, request) for run in runs}
    waiting = [run for run in runs if left[run.path]]
    skipped: Skipped = []
    for root in dict.fromkeys(run.store.root for run in runs):
        open_store(root)
    if waiting:
        hardware = set_up(StudyConfig())
        cohorts, skipped = cohorts_of(waiting, make_reader(request.data_dir))
        total, made = sum(len(left[run.path]) for cohort in cohorts for run in cohort.runs), 0
        with Meter(made, total) as meter:
            for cohort in cohorts:
                for done in _examined(cohort, left, hardware, request, skipped):
                    made += done
                    meter.advance(f"{made:,} of {total:,} experiments: {cohort.config.model}", done)
    if waiting and all(_missing(run, experiments, request) == left[run.path] for run in waiting):
        name, reason = skipped[0]
        raise UserError(f"nothing is left to examine: {reason if name in reason else f'{name}: {reason}'}")
    tell_skipped(skipped)
    for store in dict.fromkeys(run.store for run in runs):
        write_csv(store)
    console = make_console()
    print_areas(console, runs, experiments, request)
    for store in dict.fromkeys(run.store for run in runs):
        page = f"as a page: python launch/report.py {shlex.quote(str(store.root))}"
        console.print(f"ablations: {store.root / CSV}; {page}", soft_wrap=True)
    return 0


def _missing(run: FinishedRun, experiments: Sequence[Experiment], request: AblationConfig) -> list[Experiment]:
    known = read_experiments(run.store, run.id, run.result)
    return [one for one in experiments if name_of(one.settings(request)) not in known]


def _examined(
    cohort: TrainedCohort, left: dict[str, list[Experiment]], hardware: Hardware, request: AblationConfig,
    skipped: Skipped,
) -> Iterator[int]:  # fmt: skip
    """Examine a cohort, and add to `skipped`; yields how many experiments on how many networks are done with."""
    try:
        layers = layers_of(request.layers, list(cohort.problem.kernels))
        if not cohort.sizes[PARTS.index(request.part)]:
            raise UserError(f"its data have no {request.part} part")
    except UserError as error:
        skipped += [(run.path, str(error)) for run in cohort.runs]
        return
    lay_out, read = make_lay_out(cohort, layers, hardware, request), functools.lru_cache(maxsize=1)(read_group)
    size = hardware.group_size(COPIES * cohort.kernel_bytes)
    alike: dict[tuple[Experiment, ...], list[FinishedRun]] = {}
    for run in sorted(cohort.runs, key=lambda run: str(run.result.get("group"))):  # a checkpoint is read once
        alike.setdefault(tuple(left[run.path]), []).append(run)
    for experiments, runs in alike.items():
        for first in range(0, len(runs), size):
            part = runs[first : first + size]
            subjects = list(_admitted(cohort, part, request, read, skipped))
            yield len(experiments) * (len(part) - len(subjects))
            if subjects:
                yield from _conducted(subjects, experiments, lay_out, skipped)


def _admitted(
    cohort: TrainedCohort, runs: Sequence[FinishedRun], request: AblationConfig, read: Read, skipped: Skipped
) -> Iterator[Subject]:
    for run in runs:
        try:
            yield admit(cohort, run, request.which, request.retrain_rate, read)
        except UserError as error:
            skipped.append((run.path, str(error)))


def _conducted(
    subjects: list[Subject], experiments: Sequence[Experiment], lay_out: LayOut, skipped: Skipped
) -> Iterator[int]:
    """Do the experiments on some networks, and write what is found; yields how many networks are done with."""
    chunk = lay_out(subjects)
    large = [one for one in subjects if places_of(one, chunk.parts.layers).size > MOST_LEFT_OUT]
    each = [one for one in experiments if one.name == "leave_one_out"]
    if large and each:
        skipped += [(one.run.path, TOO_LARGE) for one in large]
        yield len(each) * len(large)
        if small := [one for one in subjects if one not in large]:
            yield from _written(lay_out(small), each)
        experiments = [one for one in experiments if one not in each]
    yield from _written(chunk, experiments)


def _written(chunk: Chunk, experiments: Sequence[Experiment]) -> Iterator[int]:
    found: list[list[dict[str, Any]]] = [[] for _ in chunk.subjects]
    begun = time.monotonic()
    for count, (_, records) in enumerate(conduct(chunk, experiments), 1):
        for of_run, record in zip(found, records, strict=True):
            of_run.append(record)
        yield len(records)
        if count == len(experiments) or time.monotonic() - begun > SAVED_EVERY:
            for subject, of_run in zip(chunk.subjects, found, strict=True):
                add_experiments(subject.run.store, subject.run.id, subject.run.result, of_run)
            found, begun = [[] for _ in chunk.subjects], time.monotonic()


def print_areas(
    console: Console, runs: Sequence[FinishedRun], experiments: Sequence[Experiment], request: AblationConfig
) -> None:
    """The area under every curve, by setting and order: mean and interval over seeds."""
    curves = [one for one in experiments if one.kind == "order" and one.name != "decile"]
    orders = {name_of(one.settings(request)): one for one in curves}
    rows = [{name: _text(getattr(run.config, name)) for name in SETTINGS if name != "seed"} for run in runs]
    shown = telling(rows, [name for name in rows[0] if len({row[name] for row in rows}) > 1], TOLD) or ("method",)
    groups: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for run, row in zip(runs, rows, strict=True):
        areas = groups.setdefault(tuple(row[name] for name in shown), {name: [] for name in orders})
        for name, experiment in read_experiments(run.store, run.id, run.result).items():
            if name in orders and (value := area_of(experiment)) is not None:
                areas[name].append(100 * value)
    if not any(values for areas in groups.values() for values in areas.values()):
        return
    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION, pad_edge=False, padding=(0, 1, 0, 0))
    for name in shown:
        table.add_column(name, no_wrap=True)
    for one in orders.values():
        scope = f" {one.scope}" if len(request.scopes) > 1 else ""
        table.add_column(f"{one.name}{scope}" + (f" +{one.steps} steps" if one.steps else ""), justify="right")
    for values, areas in groups.items():
        table.add_row(*values, *map(_mean, areas.values()))
    console.print(table)


def _text(value: Any) -> str:
    return EMPTY if value is None else f"{value:g}" if isinstance(value, float) else show(value)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return EMPTY
    mean = mean_interval(values, CONFIDENCE)
    return f"{mean.value:.1f}" if mean.half_width is None else f"{mean.value:.1f} ± {mean.half_width:.1f}"
