"""Train what a study lacks, group by group, and keep its results."""

import functools
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import jax
import numpy as np

from sparse_jax.config import RunConfig, StudyConfig
from sparse_jax.data.batches import Data
from sparse_jax.data.catalog import load
from sparse_jax.data.normalization import fit
from sparse_jax.data.splits import split
from sparse_jax.study.grid import Cohort, Study
from sparse_jax.study.interrupt import Interrupt
from sparse_jax.study.monitor import Monitor
from sparse_jax.study.rows import COLUMNS
from sparse_jax.study.store import Store
from sparse_jax.study.train_group import Group, Trainer, hyper_params
from sparse_jax.training.cohort import make_cohort, replicate, stack
from sparse_jax.training.hardware import Hardware, set_up
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
        "lane_width": hardware.lanes,
    }


def _record(store: Store, hardware: Hardware) -> None:
    """Add where this session runs to config.json, and say so if a study goes on elsewhere than it began."""
    config, here = store.read_config(), provenance(hardware)
    sessions = config["sessions"]
    if sessions and sessions[-1] != here:
        changed = ", ".join(name for name in here if here[name] != sessions[-1].get(name))
        print(f"note: this study was begun under other {changed} (config.json has both)", file=sys.stderr)
    if not sessions or sessions[-1] != here:
        store.write_config(config | {"sessions": [*sessions, here]})


def make_loader(data_dir: str) -> Callable[[RunConfig, jax.sharding.Mesh], tuple[Data, float]]:
    """(config, mesh) -> the data on the mesh and the share of the largest class in the test part.

    The latest data stay, because cohorts of one data set follow each other.
    """
    read = functools.lru_cache(maxsize=1)(lambda name: load(name, str(Path(data_dir).expanduser())))

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


def _groups(cohort: Cohort, hardware: Hardware, loader: Callable, finished: Collection[str]) -> Iterator[Group]:
    """The groups of a cohort that are not finished; they share the compiled functions."""
    mesh, width = hardware.place(len(cohort.runs))
    slices = [cohort.runs[start : start + width] for start in range(0, len(cohort.runs), width)]
    pending = [(i, runs) for i, runs in enumerate(slices) if any(run.id not in finished for run in runs)]
    if not pending:
        return
    config, problem = cohort.runs[0].config, cohort.runs[0].problem
    data, majority = loader(config, mesh)
    fns = make_cohort(make_train(config, problem), hardware.layout, mesh)
    for i, runs in pending:
        hyper = stack([hyper_params(run) for run in runs], width, mesh)
        yield Group(f"{cohort.id}-{i}", runs, fns, hyper, data, majority, hardware.lanes)


def execute(study: Study, settings: StudyConfig, store: Store) -> bool:
    """Train every run of the study that has no result yet; results.csv is renewed after every group.

    Returns False after SIGTERM or SIGINT, with the state of the running group saved.
    """
    hardware = set_up(settings)
    _record(store, hardware)
    order = [run.id for run in study.runs]
    store.write_csv(COLUMNS, order)
    finished = store.read_results().keys()
    interrupt, loader = Interrupt(), make_loader(settings.data_dir)
    pending = [run for run in study.runs if run.id not in finished]
    with Monitor(pending, hardware.description) as monitor:
        for cohort in study.cohorts:
            for group in _groups(cohort, hardware, loader, finished):
                trainer = Trainer(group, store, settings.checkpoint_seconds, interrupt, monitor)
                if not trainer.train():
                    return False
                store.write_csv(COLUMNS, order)
    return True
