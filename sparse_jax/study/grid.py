"""From a grid to its runs and cohorts. Imports no jax: bad input fails here, before anything is written."""

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.config import (
    AUTO,
    DYNAMIC,
    LEARNING_RATES,
    RECIPES,
    REPLACE_STEPS,
    SPARSITY,
    USES,
    RunConfig,
    StudyConfig,
)
from sparse_jax.data.catalog import describe
from sparse_jax.data.splits import sizes
from sparse_jax.errors import UserError
from sparse_jax.flags import Grid, show
from sparse_jax.topology.allocation import Allocation, allocate
from sparse_jax.training.problem import Problem, make_problem
from sparse_jax.training.timeline import stop_step, updates

LONGEST_NAME = 120  # file systems allow 255 bytes; a level, a seed, digests and endings follow


class Run(NamedTuple):
    """One network to train."""

    id: str
    config: RunConfig
    problem: Problem
    allocation: Allocation  # for the sparsity or epsilon of the configuration
    start: dict[str, int]  # connections of the masked layers at the first step
    final: dict[str, int]  # those aimed at


class Cohort(NamedTuple):
    """Runs that share one compiled program: they differ in dynamic settings only."""

    id: str
    runs: tuple[Run, ...]


class Study(NamedTuple):
    """All runs of a grid, in its order, and what the user should know beforehand."""

    runs: tuple[Run, ...]
    cohorts: tuple[Cohort, ...]
    axes: tuple[str, ...]  # the settings of which the grid has several values
    notices: tuple[str, ...]


def digest(value: Any) -> str:
    """Ten hexadecimal digits that identify a JSON value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=5).hexdigest()


def _uses(field: str, value: Any) -> set[str]:
    """The optional settings that a value of `field` (a tuple of names for activations) makes use of."""
    names = value if isinstance(value, tuple) else (value,)
    return {setting for name in names for setting in USES[field][name]}


def _refuse_unused(grid: Grid) -> None:
    """Refuse a setting that was given explicitly although nothing in the grid uses it."""
    for field, by_name in USES.items():
        optional = {setting for settings in by_name.values() for setting in settings}
        used = set().union(*(_uses(field, value) for value in grid.axes[field]))
        for name in sorted(optional & grid.given - used):
            values = ", ".join(show(value) for value in grid.axes[field])
            raise UserError(f"--{name} has no effect: --{field}={values} does not use it")


def _points(grid: Grid) -> Iterator[RunConfig]:
    """Every combination of the axes as given, without seeds."""
    if "sparsity" in grid.given and "epsilon" in grid.given:
        raise UserError("--sparsity and --epsilon both set the number of connections: give one of them")
    axes = dict(grid.axes)
    if axes["sparsity"] == axes["epsilon"] == (None,):
        axes["sparsity"] = (SPARSITY,)
    for values in itertools.product(*axes.values()):
        yield RunConfig(**dict(zip(axes, values, strict=True)))


def _without_unused(config: RunConfig) -> RunConfig:
    """None for every setting the run does not use, so that equal runs compare equal."""
    unused = {
        setting
        for field, by_name in USES.items()
        for settings in by_name.values()
        for setting in settings
        if setting not in _uses(field, getattr(config, field))
    }
    return dataclasses.replace(config, **dict.fromkeys(unused))


def _without_auto(config: RunConfig) -> RunConfig:
    """Every `auto` but the interval's replaced by what the method's paper says."""
    values: dict[str, Any] = {}
    if config.learning_rate == AUTO:
        values["learning_rate"] = LEARNING_RATES[config.optimizer]
    if config.allocation == AUTO:
        values["allocation"] = "erk" if config.epsilon is None else "erdos_renyi"
    if config.method in RECIPES:
        recipe = RECIPES[config.method]._asdict()
        values |= {name: recipe[name] for name in recipe if getattr(config, name) == AUTO}
    return dataclasses.replace(config, **values)


def _in_steps(interval: str, steps_per_epoch: int) -> int:
    epochs = re.fullmatch(r"(.*?)epochs?", interval)
    return max(1, round(Fraction(epochs[1] or 1) * steps_per_epoch)) if epochs else int(interval)


def _layered(config: RunConfig) -> RunConfig:
    """The activation as one name if all layers have the same; one name a layer otherwise."""
    layers = len(config.hidden_sizes)
    if len(config.activation) not in (1, layers):
        raise UserError(
            f"--activation={show(config.activation)} names {len(config.activation)} layers, "
            f"but --hidden_sizes={show(config.hidden_sizes)} has {layers}"
        )
    distinct = config.activation[:1] if len(set(config.activation)) == 1 else config.activation
    return dataclasses.replace(config, activation=distinct)


def _timed(config: RunConfig, problem: Problem, auto: bool, notices: list[str]) -> RunConfig:
    """The interval in steps. Training that leaves no room for an update is refused, or noticed if it is auto."""
    if config.interval is None:
        return config
    timed = dataclasses.replace(config, interval=_in_steps(config.interval, problem.steps_per_epoch))
    if timed.interval == 1 and config.method in REPLACE_STEPS:
        raise UserError(f"--interval={config.interval} leaves {config.method} no optimiser step between updates: use 2")
    if updates(timed, problem) == 0:
        stop = stop_step(timed, problem)
        room = f"training has {problem.steps} steps, and updates stop at step {stop}"
        if not auto or config.density_schedule is not None:
            longest = f"--interval={stop - 1} is the longest" if stop > 1 else "train for longer"
            raise UserError(f"--interval={config.interval} leaves no topology update: {room}; {longest}")
        notices.append(f"{config.method} updates every {timed.interval} steps, but {room}: it trains without any")
    return timed


def _name(config: RunConfig) -> str:
    """The readable part of an id; characters that a file name should not have are replaced."""
    parts = [Path(config.dataset).stem, config.model, config.method, "+".join(config.activation)]
    return re.sub(r"[^A-Za-z0-9_+-]", "_", "-".join(parts))[:LONGEST_NAME]


class _Counts(NamedTuple):
    """What the sparsity settings of a run amount to, layer by layer."""

    allocation: Allocation
    start: dict[str, int]
    final: dict[str, int]


def _counts(config: RunConfig, problem: Problem) -> _Counts:
    """The connections a run begins with and aims at: the same, unless it prunes to a schedule or by accuracy."""
    if not problem.masked:
        return _Counts(Allocation({}, None), {}, {})
    shapes = problem.masked_shapes
    allocation = allocate(config.allocation, shapes, sparsity=config.sparsity, epsilon=config.epsilon)
    counts = allocation.counts
    if config.initial_sparsity is not None:
        start = allocate(config.allocation, shapes, sparsity=config.initial_sparsity, epsilon=None).counts
        if any(start[name] < counts[name] for name in counts):
            raise UserError(
                f"--initial_sparsity={config.initial_sparsity:g} is above the sparsity that {config.method} prunes to"
            )
        return _Counts(allocation, start, counts)
    if config.least_share is not None:
        return _Counts(allocation, counts, {name: math.ceil(config.least_share * n) for name, n in counts.items()})
    return _Counts(allocation, counts, counts)


def _run(config: RunConfig, problem: Problem, counts: _Counts) -> Run:
    level = f"-s{config.sparsity:g}" if config.sparsity is not None else ""
    level += f"-e{config.epsilon:g}" if config.epsilon is not None else ""
    identity = digest(dataclasses.asdict(config))
    return Run(f"{_name(config)}{level}-seed{config.seed}-{identity}", config, problem, *counts)


def _cohorts(runs: list[Run]) -> tuple[Cohort, ...]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        static = {key: value for key, value in dataclasses.asdict(run.config).items() if key not in DYNAMIC}
        groups.setdefault(f"{_name(run.config)}-{digest(static)}", []).append(run)
    return tuple(Cohort(name, tuple(members)) for name, members in groups.items())


def _check_execution(study: StudyConfig) -> None:
    if study.exact_seeds and study.layout == "vmap":
        raise UserError("--exact_seeds needs --layout=map: a vmapped run differs from a lone one in the last bit")
    if study.first_seed + study.num_seeds > 2**32:
        raise UserError(f"--first_seed={study.first_seed} leaves no room for {study.num_seeds} seeds of 32 bits")


def make_study(grid: Grid) -> Study:
    """All runs of a grid: resolved, validated, each once, and sorted into cohorts.

    Raises:
      UserError: for anything in the grid that cannot be trained as asked.
    """
    _refuse_unused(grid)
    _check_execution(grid.study)
    data_dir = str(Path(grid.study.data_dir).expanduser())
    described = {name: describe(name, data_dir) for name in grid.axes["dataset"]}
    seeds = range(grid.study.first_seed, grid.study.first_seed + grid.study.num_seeds)
    runs: dict[RunConfig, Run] = {}
    notices: list[str] = []
    for point in _points(grid):
        config = _layered(_without_auto(_without_unused(point)))
        info = described[config.dataset]
        parts = sizes(info, config.train_size, config.test_size, config.validation_fraction)
        problem = make_problem(config, info, parts)
        if config.shrink_rate is not None and not problem.validation:
            raise UserError(f"--method={config.method} goes by validation accuracy: --validation_fraction is 0")
        config = _timed(config, problem, point.interval == AUTO, notices)
        counts = _counts(config, problem)
        for seed in seeds:
            seeded = dataclasses.replace(config, seed=seed)
            runs.setdefault(seeded, _run(seeded, problem, counts))
    ordered = list(runs.values())
    axes = tuple(name for name, values in grid.axes.items() if len(values) > 1)
    return Study(tuple(ordered), _cohorts(ordered), axes, tuple(dict.fromkeys(notices)))
