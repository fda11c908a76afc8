"""The data of the cohorts of a study, where they train."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from sparse_jax.config import AUTO, RunConfig, StudyConfig
from sparse_jax.data.arrays import info_of
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.catalog import Arrays
from sparse_jax.data.normalization import fit
from sparse_jax.data.splits import Splits, split
from sparse_jax.errors import UserError
from sparse_jax.study.grid import Run
from sparse_jax.study.store import Store
from sparse_jax.training.checkpoint import digest
from sparse_jax.training.cohort import replicate
from sparse_jax.training.feed import Feed, Resident, Streamed
from sparse_jax.training.hardware import Hardware


def same_data(store: Store, name: str, content: str) -> None:
    """Remember the digest of a data set in config.json, and refuse another one under its name."""
    with store.alone():
        config = store.read_config()
        if config["data"].setdefault(name, content) != content:
            raise UserError(f"the data set {name} is not the one this study was begun on: use another --workdir")
        store.write_config(config)


class Loaded(NamedTuple):
    """The data of a cohort."""

    data: Data  # on the devices; without the training part if that streams
    host: Splits
    streams: bool
    examples: np.ndarray  # int[classes], of the test part


def make_loader(
    settings: StudyConfig, hardware: Hardware, read: Callable[[str], Arrays], check: Callable[[str, str], None]
) -> Callable[[RunConfig, jax.sharding.Mesh], Loaded]:
    """(config, mesh) -> the data of a cohort, which `read` gives by the name of the data set.

    The latest data stay, because cohorts of one data set follow each other. `check` is told the name and the digest of
    what is read.
    """

    @functools.lru_cache(maxsize=1)
    def same(name: str) -> Arrays:
        arrays = read(name)
        check(name, digest(arrays))
        return arrays

    @functools.lru_cache(maxsize=1)
    def place(name: str, sizes: tuple, normalization: str, mesh: jax.sharding.Mesh) -> Loaded:
        train_size, test_size, fraction = sizes
        arrays = same(name)
        parts = split(arrays, train_size=train_size, test_size=test_size, validation_fraction=fraction)
        fits = hardware.holds(parts.x.nbytes + parts.y.nbytes)
        streams = settings.data_placement == "host" or (settings.data_placement == AUTO and not fits)
        first = parts.train if streams else 0
        train = parts.x[: parts.train]
        data = Data(parts.x[first:], parts.y[first:], fit(normalization, train), levels_of(train))
        test_labels = parts.y[parts.train + parts.validation :]
        examples = np.bincount(test_labels, minlength=info_of(name, arrays).classes)
        return Loaded(replicate(data, mesh), parts, streams, examples)

    def loader(config: RunConfig, mesh: jax.sharding.Mesh) -> Loaded:
        sizes = config.train_size, config.test_size, config.validation_fraction
        return place(config.dataset, sizes, config.normalization, mesh)

    return loader


def feed(loaded: Loaded, run: Run, seeds: np.ndarray, mesh: jax.sharding.Mesh) -> Feed:
    """What a group trains on; `run` is any of its runs."""
    parts = loaded.host
    if loaded.streams:
        return Streamed(loaded.data, parts, seeds, run.config.batch_size, run.problem.steps, mesh)
    return Resident(loaded.data, np.cumsum([0, parts.train, parts.validation, parts.test], dtype=np.int32))
