"""Train what a study lacks, group by group, and keep its results."""

import functools
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sparse_jax.config import AUTO, RunConfig, StudyConfig
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.catalog import Arrays
from sparse_jax.data.normalization import fit
from sparse_jax.data.splits import Splits, split
from sparse_jax.errors import UserError
from sparse_jax.sparse.build import kernel
from sparse_jax.study.grid import Cohort, Run, Study
from sparse_jax.study.interrupt import Interrupt
from sparse_jax.study.monitor import Monitor
from sparse_jax.study.rows import COLUMNS
from sparse_jax.study.store import Store
from sparse_jax.study.train_group import Group, Trainer, hyper_params
from sparse_jax.training.checkpoint import digest
from sparse_jax.training.cohort import make_cohort, replicate, stack
from sparse_jax.training.feed import Feed, Resident, Streamed
from sparse_jax.training.hardware import Hardware, set_up
from sparse_jax.training.state import TrainFns
from sparse_jax.training.train import make_train

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": sys.version.split()[0]} | {name: importlib.metadata.version(name) for name in PACKAGES}


def commit() -> str | None:
    """The commit of the checkout this code runs from, with a + if it has changes; None elsewhere."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance(hardware: Hardware, sparse: bool) -> dict:
    """What config.json says of where the results came from; `sparse`: some layer is executed so."""
    return {
        "versions": versions(),
        "commit": commit(),
        "device": hardware.description,
        "lanes": hardware.lanes,
        "products": kernel().description if sparse and hardware.devices[0].platform == "cpu" else None,
    }


def _record(store: Store, hardware: Hardware, sparse: bool) -> None:
    """Add where this session runs to config.json, and say so if a study goes on elsewhere than it began."""
    config, here = store.read_config(), provenance(hardware, sparse)
    sessions = config["sessions"]
    if sessions and sessions[-1]["lanes"] != hardware.lanes:
        raise UserError(
            f"this study was begun with {sessions[-1]['lanes']} lanes, not {hardware.lanes}: its results would "
            "differ in the last bit; --layout=map has 1 lane, --layout=vmap --lane_width=N has N"
        )
    if sessions and sessions[-1] != here:
        changed = ", ".join(name for name in here if here[name] != sessions[-1].get(name))
        print(f"note: this study was begun under other {changed} (config.json has both)", file=sys.stderr)
    if not sessions or sessions[-1] != here:
        store.write_config(config | {"sessions": [*sessions, here]})


def _tell_of_kernel(hardware: Hardware) -> None:
    """Say so where the products of connections are slower than they could be."""
    if hardware.devices[0].platform == "cpu" and (reason := kernel().reason):
        print(f"note: sparse products are computed in pure JAX, several times slower: {reason}", file=sys.stderr)


def _same_data(store: Store, name: str, content: str) -> None:
    """Remember the digest of a data set in config.json, and refuse another one under its name."""
    config = store.read_config()
    if config["data"].setdefault(name, content) != content:
        raise UserError(f"the data set {name} is not the one this study was begun on: use another --workdir")
    store.write_config(config)


class Loaded(NamedTuple):
    """The data of a cohort."""

    data: Data  # on the devices; without the training part if that streams
    host: Splits
    streams: bool
    majority: float  # share of the largest class in the test part


def make_loader(
    settings: StudyConfig, store: Store, hardware: Hardware, read: Callable[[str], Arrays]
) -> Callable[[RunConfig, jax.sharding.Mesh], Loaded]:
    """(config, mesh) -> the data of a cohort, which `read` gives by the name of the data set.

    The latest data stay, because cohorts of one data set follow each other. Raises UserError if they are not
    those that the study was begun on.
    """

    @functools.lru_cache(maxsize=1)
    def same(name: str) -> Arrays:
        arrays = read(name)
        _same_data(store, name, digest(arrays))
        return arrays

    @functools.lru_cache(maxsize=1)
    def place(name: str, sizes: tuple, normalization: str, mesh: jax.sharding.Mesh) -> Loaded:
        train_size, test_size, fraction = sizes
        parts = split(same(name), train_size=train_size, test_size=test_size, validation_fraction=fraction)
        fits = hardware.holds(parts.x.nbytes + parts.y.nbytes)
        streams = settings.data_placement == "host" or (settings.data_placement == AUTO and not fits)
        first = parts.train if streams else 0
        train = parts.x[: parts.train]
        data = Data(parts.x[first:], parts.y[first:], fit(normalization, train), levels_of(train))
        test_labels = parts.y[parts.train + parts.validation :]
        majority = float(np.bincount(test_labels).max() / parts.test)
        return Loaded(replicate(data, mesh), parts, streams, majority)

    def loader(config: RunConfig, mesh: jax.sharding.Mesh) -> Loaded:
        sizes = config.train_size, config.test_size, config.validation_fraction
        return place(config.dataset, sizes, config.normalization, mesh)

    return loader


def _feed(loaded: Loaded, run: Run, seeds: np.ndarray, mesh: jax.sharding.Mesh) -> Feed:
    """What a group trains on; `run` is any of its runs."""
    parts = loaded.host
    if loaded.streams:
        return Streamed(loaded.data, parts, seeds, run.config.batch_size, run.problem.steps, mesh)
    return Resident(loaded.data, np.cumsum([0, parts.train, parts.validation, parts.test], dtype=np.int32))


def _groups(cohort: Cohort, hardware: Hardware, loader: Callable, finished: frozenset[str]) -> Iterator[Group]:
    """The groups of a cohort that are not finished; those of one width share the compiled functions."""
    config, problem = cohort.runs[0].config, cohort.runs[0].problem
    groups = -(-len(cohort.runs) // hardware.group_size())
    size = -(-len(cohort.runs) // groups)
    programs: dict[int, TrainFns] = {}
    for start in range(0, len(cohort.runs), size):
        runs = cohort.runs[start : start + size]
        if all(run.id in finished for run in runs):
            continue
        mesh, width = hardware.place(len(runs))
        if width not in programs:
            programs[width] = make_cohort(make_train(config, problem), hardware.layout, mesh)
        loaded = loader(config, mesh)
        hyper = stack([hyper_params(run) for run in runs], width, mesh)
        feed = _feed(loaded, runs[0], np.asarray(hyper.seed), mesh)
        name = f"{cohort.id}-{start // size}"
        yield Group(name, runs, programs[width], hyper, mesh, feed, finished, loaded.majority, hardware.lanes)


def execute(
    study: Study, settings: StudyConfig, store: Store, interrupt: Interrupt, read: Callable[[str], Arrays]
) -> bool:
    """Train every run of the study that has no result yet; results.csv is renewed after every group.

    Returns False after SIGTERM or SIGINT, with the state of the running group saved.

    Raises:
      UserError: the study was begun on other data, or with another number of lanes.
    """
    hardware, sparse = set_up(settings), any(run.problem.slots for run in study.runs)
    _record(store, hardware, sparse)
    if sparse:
        _tell_of_kernel(hardware)
    order = [run.id for run in study.runs]
    store.write_csv(COLUMNS, order)
    finished = frozenset(store.read_results())
    loader = make_loader(settings, store, hardware, read)
    pending = [run for run in study.runs if run.id not in finished]
    with Monitor(pending, hardware.description) as monitor:
        for cohort in study.cohorts:
            for group in _groups(cohort, hardware, loader, finished):
                if interrupt.asked:
                    return False
                trainer = Trainer(group, store, settings.checkpoint_seconds, interrupt, monitor)
                if not trainer.train():
                    return False
                store.write_csv(COLUMNS, order)
    return True
