"""From a grid to its runs and cohorts. Imports no jax: bad input fails here, before anything is written."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.config import ALONE, AUTO, DATASET_FILES, DYNAMIC, RunConfig, StudyConfig, settings
from sparse_jax.data.catalog import DatasetInfo, describe
from sparse_jax.data.splits import sizes
from sparse_jax.errors import UserError
from sparse_jax.flags import Grid
from sparse_jax.recipes import USED_BY
from sparse_jax.study.constructed import construction
from sparse_jax.study.execution import executed
from sparse_jax.study.resolve import (
    COUNTED_BY,
    Connections,
    connections_of,
    left_out,
    settings_of,
    timed,
    without_updates,
)
from sparse_jax.study.sources import Known, Lent, by_seed, check_lender, check_room, lent_to
from sparse_jax.topology.allocation import Allocation
from sparse_jax.training.problem import Problem, make_problem
from sparse_jax.training.timeline import rate_steps
from sparse_jax.values import show

LONGEST_NAME = 120  # file systems allow 255 bytes; a level, a seed, digests and endings follow
MOST_NAMES = 6  # that a message lists as a remedy


class Run(NamedTuple):
    """One network to train."""

    id: str
    config: RunConfig
    problem: Problem
    allocation: Allocation  # for the sparsity or epsilon of the configuration
    start: dict[str, int]  # connections of the masked layers at the first step
    final: dict[str, int]  # those aimed at
    masks: str | None  # digest of the first masks, if they are known before anything is computed
    lent: Lent  # what it begins with of other runs and files


class Cohort(NamedTuple):
    """Runs that share one compiled program: they differ in dynamic settings only."""

    id: str
    runs: tuple[Run, ...]


class _Resolved(NamedTuple):
    """What a point of the grid amounts to with one seed."""

    config: RunConfig
    problem: Problem
    connections: Connections
    lent: Lent
    notices: list[str | None]  # what the user should know


class Study(NamedTuple):
    """All runs of a grid, in its order, and what the user should know beforehand."""

    runs: tuple[Run, ...]
    cohorts: tuple[Cohort, ...]
    axes: tuple[str, ...]  # the settings of which the grid has several values
    notices: tuple[str, ...]


def digest(value: Any) -> str:
    """Ten hexadecimal digits that identify a JSON value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=5).hexdigest()


def _unused(grid: Grid, runs: Iterable[Run]) -> list[str]:
    """Refuses a setting that was asked for although no run uses it, and notes those that only a flagfile has."""
    used = {
        name
        for run in runs
        for name, value in dataclasses.asdict(run.config).items()
        if value is not None and (name != "interval" or run.config.levels is None)  # levels come with their own
    }
    refused, noted = (sorted(names & grid.axes.keys() - used) for names in (grid.given, grid.beside))
    for name in refused:
        if not USED_BY[name].keys() & set(refused):  # else that other one is the reason
            raise UserError(f"--{name} has no effect: {_why_unused(grid, name)}")
    return unused_in_flagfile(noted)


def unused_in_flagfile(names: Collection[str]) -> list[str]:
    """What the user should know where the command line leaves such settings of a flagfile without a use."""
    return [f"nothing uses what the flagfile says of {', '.join(sorted(names))}"] if names else []


def _why_unused(grid: Grid, name: str) -> str:
    """What in a grid does without a setting, and which values would use it."""
    users = USED_BY[name]
    shown = {other: f"--{other}={', '.join(show(value) for value in grid.axes[other])}" for other in grid.axes}
    counting = [other for other, counts in COUNTED_BY.items() if any(map(counts, grid.axes[other]))]
    if counting and any(value != AUTO and use(value) for other, use in users.items() for value in grid.axes[other]):
        return f"{shown[counting[0]]} says how many connections there are"
    choices = {other: _examples(settings(RunConfig)[other].metadata) for other in users}
    fits = {other: [value for value in values if users[other](value)] for other, values in choices.items()}
    more = {other: " and others" if len(fit) > MOST_NAMES else "" for other, fit in fits.items()}
    lists = [f"--{other}={', '.join(fit[:MOST_NAMES])}{more[other]}" for other, fit in fits.items() if fit]
    suited = " or ".join(lists) or f"a positive --{next(iter(users))}"
    return f"{' and '.join(shown[other] for other in users)} does not use it; it is for {suited}"


def _examples(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What a setting may be, by name or by form."""
    return (*(metadata.get("choices") or ()), *map("".join, (metadata.get("forms") or {}).items()))


def _points(grid: Grid) -> Iterator[RunConfig]:
    """Every combination of the axes as given, without seeds."""
    for values in itertools.product(*grid.axes.values()):
        yield RunConfig(**dict(zip(grid.axes, values, strict=True)))


def dataset_label(dataset: str) -> str:
    """A data set as the names of files have it: the stem of a path; emnist_balanced of emnist/balanced."""
    return Path(dataset).stem if dataset.endswith(DATASET_FILES) else dataset.replace("/", "_")


def _name(config: RunConfig) -> str:
    """The readable part of an id; characters that a file name should not have are replaced."""
    parts = [dataset_label(config.dataset), config.model, config.method, "+".join(config.activation)]
    return re.sub(r"[^A-Za-z0-9_+-]", "_", "-".join(parts))[:LONGEST_NAME]


def _run(config: RunConfig, problem: Problem, connections: Connections, lent: Lent) -> Run:
    level = f"-s{config.sparsity:g}" if config.sparsity is not None else ""
    level += f"-e{config.epsilon:g}" if config.epsilon is not None else ""
    identity = digest(dataclasses.asdict(config))
    return Run(f"{_name(config)}{level}-seed{config.seed}-{identity}", config, problem, *connections, lent)


def _cohorts(runs: list[Run]) -> tuple[Cohort, ...]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        dynamic = DYNAMIC if not run.problem.slots else ("seed", "learning_rate", "weight_decay")
        static = {key: value for key, value in dataclasses.asdict(run.config).items() if key not in dynamic}
        static |= {"slots": dict(run.problem.slots)} if run.masks else {}  # two runs may lend masks of different sizes
        groups.setdefault(f"{_name(run.config)}-{digest(static)}", []).append(run)
    return tuple(Cohort(name, tuple(members)) for name, members in groups.items())


def _check_execution(study: StudyConfig) -> None:
    if study.exact_seeds and study.layout == "vmap":
        raise UserError("--exact_seeds needs --layout=map: a vmapped run differs from a lone one in the last bit")
    if study.exact_seeds and study.batch_devices > 1:
        raise UserError("--exact_seeds needs --batch_devices=1: sums over the parts of a batch differ in the last bit")
    if study.first_seed + study.num_seeds > 2**32:
        raise UserError(f"--first_seed={study.first_seed} leaves no room for {study.num_seeds} seeds of 32 bits")
    if study.coordinator in (ALONE, AUTO) and (study.num_processes, study.process_id) != (1, 0):
        raise UserError("--num_processes and --process_id are for --coordinator=HOST:PORT")
    if study.process_id >= study.num_processes:
        raise UserError(f"--process_id={study.process_id} is none of --num_processes={study.num_processes}: 0 is first")


def _check_batch(config: RunConfig, study: StudyConfig) -> None:
    if config.batch_size % study.batch_devices:
        raise UserError(f"--batch_devices={study.batch_devices} does not divide --batch_size={config.batch_size}")


def _check_warmup(config: RunConfig, problem: Problem) -> None:
    epochs = rate_steps(config, problem) / problem.steps_per_epoch
    if config.warmup_epochs and config.warmup_epochs >= epochs:
        until = "training has" if config.levels is None else f"--method={config.method} first prunes after"
        raise UserError(
            f"--warmup_epochs={config.warmup_epochs:g} would not end: {until} {epochs:g} epochs; warm up for less, or "
            "train for longer"
        )


def _seeded(point: RunConfig, info: DatasetInfo, seeds: range, known: Known) -> Iterator[_Resolved]:
    """What a point of the grid amounts to with every seed. Raises UserError."""
    first = _resolved(dataclasses.replace(point, seed=seeds[0]), info, known)
    yield first
    for seed in seeds[1:]:
        if by_seed(first.config):
            yield _resolved(dataclasses.replace(point, seed=seed), info, known)
        else:
            yield first._replace(config=dataclasses.replace(first.config, seed=seed), notices=[])


def _resolved(point: RunConfig, info: DatasetInfo, known: Known) -> _Resolved:
    """What a point of the grid amounts to with its seed, and what the user should know of it. Raises UserError."""
    config = settings_of(point)
    parts = sizes(info, config.train_size, config.test_size, config.validation_fraction)
    problem = make_problem(config, info, parts)
    if config.shrink_rate is not None and not problem.validation:
        raise UserError(
            f"--method={config.method} goes by validation accuracy: --validation_fraction=0 leaves none, use 0.1"
        )
    lent = lent_to(config, known)
    check_lender(config, problem, lent)
    connections = connections_of(config, problem, lent)
    check_room(config, connections.start, lent)
    config, problem, mixed = executed(timed(config, problem, connections), problem, connections)
    _check_warmup(config, problem)
    notices = [without_updates(config, problem, point.interval), left_out(config, connections), mixed]
    return _Resolved(config, problem, connections, lent, [*notices, construction(config, problem)])


def make_study(grid: Grid, known: Known) -> Study:
    """All runs of a grid: resolved, validated, each once, and sorted into cohorts.

    Args:
      grid: what the command line asks for.
      known: what config.json says of the patterns of an earlier session; see `sources.lent_to`.

    Raises:
      UserError: for anything in the grid that cannot be trained as asked.
    """
    _check_execution(grid.study)
    data_dir = str(Path(grid.study.data_dir).expanduser())
    described = {name: describe(name, data_dir) for name in grid.axes["dataset"]}
    seeds = range(grid.study.first_seed, grid.study.first_seed + grid.study.num_seeds)
    runs: dict[RunConfig, Run] = {}
    notices: list[str | None] = []
    axes = tuple(name for name, values in grid.axes.items() if len(values) > 1)
    for point in _points(grid):
        try:
            for config, problem, connections, lent, noticed in _seeded(point, described[point.dataset], seeds, known):
                _check_batch(config, grid.study)
                notices += noticed
                runs.setdefault(config, _run(config, problem, connections, lent))
        except UserError as error:
            where = " ".join(f"--{name}={show(getattr(point, name))}" for name in axes)
            raise UserError(f"{error} (at {where})" if where else str(error)) from None
    notices += _unused(grid, runs.values())
    ordered = list(runs.values())
    return Study(tuple(ordered), _cohorts(ordered), axes, tuple(dict.fromkeys(filter(None, notices))))
