"""A search as it is asked for: checked settings, the sizes of its data, its workdir. Imports no jax."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.config import AUTO, WANN_MUTATIONS, RunConfig, StudyConfig, WannConfig, settings
from sparse_jax.data.catalog import DatasetInfo, describe
from sparse_jax.data.splits import sizes
from sparse_jax.errors import UserError
from sparse_jax.search.files import Place
from sparse_jax.search.places import Places
from sparse_jax.study.grid import dataset_label, digest
from sparse_jax.values import show

DATA = ("dataset", "train_size", "test_size", "validation_fraction", "normalization")  # what it has of RunConfig
HOST = ("workdir", "resume", "dry_run", "data_dir", "checkpoint_seconds", "cpu_devices", "compilation_cache")
MOST = 2**31  # entries of all genomes together


class Asked(NamedTuple):
    """What the command line says: of StudyConfig only what HOST names."""

    search: WannConfig
    data: RunConfig
    host: StudyConfig


class Plan(NamedTuple):
    """A search that can begin."""

    asked: Asked
    info: DatasetInfo
    sizes: tuple[int, int, int]  # examples for training, validation and test
    places: Places
    workdir: Path

    @property
    def values(self) -> dict[str, str]:
        """All that determines its course, as the flags write it; more generations are the same course."""
        search, data = self.asked.search, self.asked.data
        names = [name for name in settings(WannConfig) if name != "generations"]
        return {name: show(getattr(search, name)) for name in names} | {n: show(getattr(data, n)) for n in DATA}

    @property
    def place(self) -> Place:
        """Where it is kept."""
        return Place(self.workdir, "wann", self.values, self.asked.data.dataset, self.asked.host)

    @property
    def description(self) -> str:
        """What would be done, in a few lines."""
        search, places = self.asked.search, self.places
        train, validation, test = self.sizes
        scored = min(search.batch or train, train)
        return "\n".join([
            f"{search.generations:,} generations of {search.population:,} networks, each scored at "
            f"{len(search.weights)} weights on {scored:,} of {train:,} training examples; {validation:,} for "
            f"validation, {test:,} for the test",
            f"{places.inputs:,} inputs, {places.layers} layers of {places.width:,} places for nodes, "
            f"{places.outputs:,} outputs: {places.possible:,} possible connections",
            f"would write to {self.workdir}",
        ])  # fmt: skip


def make_plan(asked: Asked) -> Plan:
    """Check what is asked for. Raises UserError, one line, for what cannot be searched; nothing is written."""
    search, data = asked.search, asked.data
    info = describe(data.dataset, str(Path(asked.host.data_dir).expanduser()))
    parts = sizes(info, data.train_size, data.test_size, data.validation_fraction)
    places = Places(math.prod(info.input_shape), info.classes, search.layers, search.nodes)
    if 0 in search.weights:
        raise UserError("--weights: with a shared weight of 0 no network has an output")
    if not parts[1]:
        raise UserError("--validation_fraction=0 leaves nothing to choose the best network by")
    if not any(getattr(search, name) for name in WANN_MUTATIONS):
        raise UserError(f"no mutation: one of {', '.join(f'--{name}' for name in WANN_MUTATIONS)} has to be above 0")
    if (entries := search.population * places.entries) > MOST:
        raise UserError(
            f"{search.population:,} networks of {places.entries:,} places of connections are "
            f"{entries / 2**30:,.1f} GiB: use fewer --nodes, --layers or --population"
        )
    plan = Plan(asked, info, parts, places, Path())
    return plan._replace(workdir=_workdir(asked, plan.values))


def _workdir(asked: Asked, of: dict[str, Any]) -> Path:
    if asked.host.workdir != AUTO:
        return Path(asked.host.workdir).expanduser()
    return Path("results") / f"{dataset_label(asked.data.dataset)}-wann-{digest(list(of.items()))}"
