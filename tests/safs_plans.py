"""Small searches for activation functions, and what has to be equal of two of them."""

import dataclasses
import json

import jax

from sparse_jax import flags
from sparse_jax.config import RunConfig, SafsConfig, StudyConfig, settings
from sparse_jax.search import safs_run
from sparse_jax.search.safs_plan import LEVELS, NETWORK, OWN, Asked, make_plan
from sparse_jax.study.files import read_lines
from sparse_jax.training.hardware import Hardware
from tests.asking import Asking

SEARCH = SafsConfig(
    operators=("relu", "tanh", "symlog"), steps=3, candidate_epochs=2, trials=3, abreast=2, sampler="random",
    tuned_optimizers=("momentum", "adam"), tuned_schedules=("constant",),
)  # fmt: skip
NETWORKS = {
    "dataset": "digits", "train_size": 200, "test_size": 100, "hidden_sizes": (12, 8), "batch_size": 20, "epochs": 3,
    "learning_rate": 0.1, "lr_schedule": "constant", "sparsity": 0.8,
}  # fmt: skip


def plan_of(workdir, seeds=2, networks=None, host=None, given=None, **changes):
    """`given` are the settings of the networks that the command line names: without it all of `networks`."""
    defaults = {name: field.default for name, field in settings(RunConfig).items() if name in NETWORK}
    values = defaults | OWN | NETWORKS | (networks or {})
    axes = {name: value if name in LEVELS and isinstance(value, tuple) else (value,) for name, value in values.items()}
    study = StudyConfig(workdir=str(workdir), checkpoint_seconds=1e9, num_seeds=seeds, **(host or {}))
    search = dataclasses.replace(SEARCH, **changes)
    return make_plan(Asked(search, flags.Grid(axes, study, frozenset((networks or ()) if given is None else given))))


def devices(count, layout="map", lanes=32):
    """The hardware of a search, for `safs_run.set_up`."""
    return lambda study: Hardware(tuple(jax.devices()[:count]), layout, lanes)


def search(plan, interrupt=None):
    return safs_run.search(plan, interrupt or Asking())


def without_times(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def outcome(workdir):
    """What has to be equal however often a search was interrupted."""
    result = json.loads((workdir / "result.json").read_text())
    del result["seconds"]
    for one in result["pipelines"]:
        for network in one["networks"].values():
            del network["seconds"]
    keys = "stage", "pipeline", "step", "trial"
    lines = without_times(read_lines(workdir / "candidates.jsonl"))
    return result, sorted(lines, key=lambda line: [str(line.get(name)) for name in keys])
