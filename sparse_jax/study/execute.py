"""Train what a study lacks, group by group, and keep its results."""

import functools
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from sparse_jax.config import RunConfig, StudyConfig
from sparse_jax.data.batches import Data
from sparse_jax.data.catalog import Arrays, load
from sparse_jax.data.normalization import fit
from sparse_jax.data.splits import split
from sparse_jax.errors import UserError
from sparse_jax.study.grid import Cohort, Study
from sparse_jax.study.interrupt import Interrupt
from sparse_jax.study.monitor import Monitor
from sparse_jax.study.rows import COLUMNS
from sparse_jax.study.store import Store
from sparse_jax.study.train_group import Group, Trainer, hyper_params
from sparse_jax.training.checkpoint import digest
from sparse_jax.training.cohort import make_cohort, replicate, stack
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


def provenance(hardware: Hardware) -> dict:
    """What config.json says of where the results came from."""
    return {
        "versions": versions(),
        "commit": commit(),
        "device": hardware.description,
        "lanes": hardware.lanes,
    }


def _record(store: Store, hardware: Hardware) -> None:
    """Add where this session runs to config.json, and say so if a study goes on elsewhere than it began."""
    config, here = store.read_config(), provenance(hardware)
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


def _same_data(store: Store, name: str, content: str) -> None:
    """Remember the digest of a data set in config.json, and refuse another one under its name."""
    config = store.read_config()
    if config["data"].setdefault(name, content) != content:
        raise UserError(f"the data set {name} is not the one this study was begun on: use another --workdir")
    store.write_config(config)


def make_loader(data_dir: str, store: Store) -> Callable[[RunConfig, jax.sharding.Mesh], tuple[Data, float]]:
    """(config, mesh) -> the data on the mesh and the share of the largest class in the test part.

    The latest data stay, because cohorts of one data set follow each other. Raises UserError if they are not
    those that the study was begun on.
    """

    @functools.lru_cache(maxsize=1)
    def read(name: str) -> Arrays:
        arrays = load(name, str(Path(data_dir).expanduser()))
        _same_data(store, name, digest(arrays))
        return arrays

    @functools.lru_cache(maxsize=1)
    def place(name: str, sizes: tuple, normalization: str, mesh: jax.sharding.Mesh) -> tuple[Data, float]:
        train_size, test_size, fraction = sizes
        parts = split(read(name), train_size=train_size, test_size=test_size, validation_fraction=fraction)
        data = Data(parts.x, parts.y, fit(normalization, parts.x[: parts.train]))
        test_labels = parts.y[parts.train + parts.validation :]
        return replicate(data, mesh), float(np.bincount(test_labels).max() / parts.test)

    def loader(config: RunConfig, mesh: jax.sharding.Mesh) -> tuple[Data, float]:
        sizes = config.train_size, config.test_size, config.validation_fraction
        return place(config.dataset, sizes, config.normalization, mesh)

    return loader


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
        data, majority = loader(config, mesh)
        hyper = stack([hyper_params(run) for run in runs], width, mesh)
        name = f"{cohort.id}-{start // size}"
        yield Group(name, runs, programs[width], hyper, mesh, data, finished, majority, hardware.lanes)


def execute(study: Study, settings: StudyConfig, store: Store, interrupt: Interrupt) -> bool:
    """Train every run of the study that has no result yet; results.csv is renewed after every group.

    Returns False after SIGTERM or SIGINT, with the state of the running group saved.

    Raises:
      UserError: the study was begun on other data, or with another number of lanes.
    """
    hardware = set_up(settings)
    _record(store, hardware)
    order = [run.id for run in study.runs]
    store.write_csv(COLUMNS, order)
    finished = frozenset(store.read_results())
    loader = make_loader(settings.data_dir, store)
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
