"""Train what a study lacks, group by group, and keep its results."""

import functools
import importlib.metadata
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

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
from sparse_jax.study.train_group import Group, Trainer
from sparse_jax.training.cohort import make_cohort, replicate
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
        "layout": hardware.layout,
        "lane_width": hardware.lane_width,
    }


class _Loader:
    """The data of the study on the devices, one set at a time."""

    def __init__(self, data_dir: str, hardware: Hardware) -> None:
        self._place = functools.lru_cache(maxsize=1)(self._place)
        self._read = functools.lru_cache(maxsize=1)(lambda name: load(name, str(Path(data_dir).expanduser())))
        self._hardware = hardware

    def __call__(self, config: RunConfig) -> tuple[Data, float]:
        """The data of a run and the share of the largest class in its test part."""
        return self._place(
            config.dataset, config.train_size, config.test_size, config.validation_fraction, config.normalization
        )

    def _place(
        self, name: str, train_size: int, test_size: int, validation_fraction: float, normalization: str
    ) -> tuple[Data, float]:
        parts = split(
            self._read(name), train_size=train_size, test_size=test_size, validation_fraction=validation_fraction
        )
        data = Data(parts.x, parts.y, fit(normalization, parts.x[: parts.train]))
        test_labels = parts.y[parts.train + parts.validation :]
        return replicate(data, self._hardware.mesh), float(np.bincount(test_labels).max() / parts.test)


def _groups(cohort: Cohort, hardware: Hardware, loader: _Loader, finished: Collection[str]) -> Iterator[Group]:
    """The groups of a cohort that are not finished; they share the compiled functions."""
    width = hardware.width(len(cohort.runs))
    slices = [cohort.runs[start : start + width] for start in range(0, len(cohort.runs), width)]
    pending = [(i, runs) for i, runs in enumerate(slices) if any(run.id not in finished for run in runs)]
    if not pending:
        return
    config, problem = cohort.runs[0].config, cohort.runs[0].problem
    data, majority = loader(config)
    fns = make_cohort(make_train(config, problem), hardware.layout, hardware.mesh)
    for i, runs in pending:
        yield Group(f"{cohort.id}-{i}", runs, fns, data, majority, width)


def execute(study: Study, settings: StudyConfig, store: Store) -> bool:
    """Train every run of the study that has no result yet; results.csv is renewed after every group.

    Returns False after SIGTERM or SIGINT, with the state of the running group saved.
    """
    hardware = set_up(settings)
    store.write_config({**(store.read_config() or {}), **provenance(hardware)})
    order = [run.id for run in study.runs]
    store.write_csv(COLUMNS, order)
    finished = store.read_results().keys()
    interrupt, loader = Interrupt(), _Loader(settings.data_dir, hardware)
    pending = [run for run in study.runs if run.id not in finished]
    with Monitor(pending, hardware.description) as monitor:
        for cohort in study.cohorts:
            for group in _groups(cohort, hardware, loader, finished):
                trainer = Trainer(group, store, hardware, settings.checkpoint_seconds, interrupt, monitor)
                if not trainer.train():
                    return False
                store.write_csv(COLUMNS, order)
    return True
