"""The host loop of the search for weight agnostic networks: generations, checkpoints, and the result at the end."""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.data.catalog import make_reader
from sparse_jax.data.normalization import fit, make_apply
from sparse_jax.data.splits import Splits, split
from sparse_jax.errors import UserError
from sparse_jax.search.files import load_arrays, opened, save_arrays
from sparse_jax.search.wann import Examples, Report, State, make_generation, shardings, start
from sparse_jax.search.wann_files import STATE, write_course
from sparse_jax.search.wann_plan import Plan
from sparse_jax.search.wann_result import conclude
from sparse_jax.study.interrupt import INTERRUPTED, Interrupt
from sparse_jax.study.meter import Meter
from sparse_jax.study.provenance import origin
from sparse_jax.training.checkpoint import by_path
from sparse_jax.training.cohort import make_mesh, replicate
from sparse_jax.training.hardware import Hardware, set_up

COURSE = "course."  # before a column, in the checkpoint
COLUMNS = (*Report._fields, "seconds")


class Found(NamedTuple):
    """Where a search stands."""

    state: State
    course: dict[str, list]  # by column, one entry a generation


def search(plan: Plan, interrupt: Interrupt) -> int:
    """Search, or continue what the workdir holds; the exit status of the program.

    Raises:
      UserError: for data that cannot be read, or a workdir that is in use or another's (`files.opened`).
    """
    hardware = set_up(plan.asked.host)
    data = plan.asked.data
    arrays = make_reader(plan.asked.host.data_dir)(data.dataset)
    sizes = {name: getattr(data, name) for name in ("train_size", "test_size", "validation_fraction")}
    with opened(plan.place, origin(arrays, hardware)) as workdir:
        parts = split(arrays, **sizes)
        x = inputs_of(plan, parts)
        begin, end = parts.train, parts.train + parts.validation
        examples = Examples(x[:, :begin], parts.y[:begin], x[:, begin:end], parts.y[begin:end])
        found = _searched(plan, hardware, interrupt, workdir, examples)
        if len(found.course["seconds"]) < plan.asked.search.generations:
            print(f"stopped and saved: the same command continues {plan.workdir}", file=sys.stderr)
            return INTERRUPTED
        test = x[:, end:], parts.y[end:]
        conclude(plan, workdir, jax.device_get(found.state), found.course["seconds"][-1], examples, test)
    return 0


def inputs_of(plan: Plan, parts: Splits) -> np.ndarray:
    """float32[inputs, examples], normalised as the training part says."""
    name = plan.asked.data.normalization
    normalized = jax.jit(make_apply(name))(fit(name, parts.x[: parts.train]), parts.x)
    return np.ascontiguousarray(np.asarray(normalized).reshape(len(parts.y), -1).T)


def _searched(plan: Plan, hardware: Hardware, interrupt: Interrupt, workdir: Path, examples: Examples) -> Found:
    """The search, as far as it comes before somebody asks it to stop."""
    config, host = plan.asked.search, plan.asked.host
    mesh = make_mesh(hardware.devices[: _devices(config.population, len(hardware.devices))])
    key = jax.random.key(config.seed)
    found = _restored(plan, workdir, key)
    state, course = jax.device_put(found.state, shardings(mesh)), found.course
    made = len(course["seconds"])
    if made > config.generations:
        raise UserError(f"{plan.workdir} has {made:,} generations already: --generations={config.generations} is fewer")
    generation = make_generation(config, plan.places, hardware.layout, mesh)
    key, examples = replicate((key, examples), mesh)
    began, saved = time.monotonic() - (course["seconds"][-1] if made else 0), time.monotonic()
    with Meter(made, config.generations) as meter:
        for number in range(made + 1, config.generations + 1):
            state, report = generation(key, state, examples)
            _note(course, jax.device_get(report), time.monotonic() - began)
            meter.advance(_line(number, course))
            ends = interrupt.asked or number == config.generations
            if ends or time.monotonic() - saved >= host.checkpoint_seconds:
                _save(workdir, state, course)
                saved = time.monotonic()
            if ends:
                break
    return Found(state, course)


def _devices(population: int, devices: int) -> int:
    """How many devices share the networks: the most that divide their number."""
    return max(count for count in range(1, devices + 1) if population % count == 0)


def _note(course: dict[str, list], report: Report, seconds: float) -> None:
    for name, value in (report._asdict() | {"seconds": seconds}).items():
        course[name].append(value)


def _line(number: int, course: dict[str, list]) -> str:
    last = {name: values[-1] for name, values in course.items()}
    return (
        f"generation {number:,}: mean accuracy {100 * last['best_accuracy']:.1f} %, "
        f"{last['connections']:,} connections, {last['hidden']:,} nodes, {last['seconds']:.0f} s"
    )


# --- checkpoints -----------------------------------------------------------------------------------


def _save(workdir: Path, state: State, course: dict[str, list]) -> None:
    columns = {name: np.array(values) for name, values in course.items()}
    arrays = dict(by_path(jax.device_get(state))) | {COURSE + name: column for name, column in columns.items()}
    save_arrays(workdir / STATE, arrays)
    write_course(workdir, columns)


def _restored(plan: Plan, workdir: Path, key: jax.Array) -> Found:
    """What the workdir holds, or a first generation."""
    first = jax.jit(lambda key: start(plan.asked.search, plan.places, key))
    like = jax.eval_shape(first, key)
    columns = {COURSE + name: jax.ShapeDtypeStruct((-1,), jnp.float32) for name in COLUMNS}
    arrays = load_arrays(workdir / STATE, dict(by_path(like)) | columns)
    if arrays is None:
        return Found(first(key), {name: [] for name in COLUMNS})
    leaves = [arrays[name] for name, _ in by_path(like)]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return Found(state, {name: list(arrays[COURSE + name]) for name in COLUMNS})
