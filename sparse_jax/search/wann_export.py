"""A network that was found, for launch/train.py: masks of --model=skip_mlp, and the flags that go with them."""

from typing import NamedTuple

import numpy as np

from sparse_jax.config import WANN_FUNCTIONS, RunConfig, StudyConfig, settings
from sparse_jax.search.genome import Genome
from sparse_jax.search.places import Places
from sparse_jax.search.wann_plan import DATA, Plan
from sparse_jax.values import show

MASKS, FLAGS = "masks.npz", "train.flags"


class Exported(NamedTuple):
    """A network in layers of one activation function each, which see the inputs and all layers before them."""

    hidden_sizes: tuple[int, ...]
    activation: tuple[str, ...]  # one a layer
    masks: dict[str, np.ndarray]  # kernel -> bool[inputs + the widths before it, its width]


def export(places: Places, genome: Genome) -> Exported | None:
    """The network of a genome: its used slots, by layer and function; None where it has no hidden node.

    Args:
      places: of the genome.
      genome: one network, on the host.
    """
    (slots,) = np.nonzero(genome.used)
    if not slots.size:
        return None
    kinds = np.stack([places.slot_layers[slots], places.slot_functions[slots]])
    begins = np.flatnonzero(np.r_[True, (kinds[:, 1:] != kinds[:, :-1]).any(axis=0)])
    rows = np.concatenate([np.arange(places.inputs), places.inputs + slots])
    enabled = np.asarray(genome.enabled)[rows]
    masks = {}
    for i, (begin, block) in enumerate(zip(begins, np.split(slots, begins[1:]), strict=True)):
        masks[f"dense_{i}/kernel"] = enabled[: places.inputs + begin][:, block]
    masks["output/kernel"] = enabled[:, places.hidden :]
    return Exported(
        tuple(mask.shape[1] for mask in masks.values())[:-1],
        tuple(WANN_FUNCTIONS[function] for function in kinds[1, begins]),
        masks,
    )


def flagfile(plan: Plan, exported: Exported) -> str:
    """The text of train.flags: the study that trains this network, on the same data."""
    folder, data, host = plan.workdir, plan.asked.data, plan.asked.host
    defaults = settings(RunConfig)
    changed = [name for name in DATA if name == "dataset" or getattr(data, name) != defaults[name].default]
    lines = [f"--{name}={show(getattr(data, name))}" for name in changed]
    if host.data_dir != StudyConfig.data_dir:
        lines.append(f"--data_dir={host.data_dir}")
    return "\n".join([
        "# The network that a search for weight agnostic networks found, each connection with a weight of its own.",
        "#",
        f"# command   python launch/train.py --flagfile={folder / FLAGS}",
        *lines,
        "--model=skip_mlp",
        f"--hidden_sizes={show(exported.hidden_sizes)}",
        f"--activation={show(exported.activation)}",
        "--method=static",
        f"--initial_topology=file:{folder / MASKS}",
        "",
    ])  # fmt: skip
