"""The finished runs and files that a run begins with, instead of drawing its own. Imports no jax."""

import glob
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.config import FILE, FROM_RUN, ORIGINAL, TRAINED, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.study.finished import Place, find, lost
from sparse_jax.study.store import MASKS
from sparse_jax.training.problem import Problem
from sparse_jax.values import BRACES, show

LISTED = 3  # of the paths that a message names
_SHAPING = ("model", "hidden_sizes", "depth", "width", "heads", "patch_size")  # the parameters of a network
SAME = {ORIGINAL: (*_SHAPING, "initializer"), TRAINED: (*_SHAPING, "activation", "activation_scale")}


class Source(NamedTuple):
    """The run that lends its weights."""

    kind: str  # ORIGINAL or TRAINED
    place: Place


def located(pattern: str, config: RunConfig) -> str:
    """The path that a pattern names, with the settings in its braces as those of the run.

    Raises:
      UserError: the run does not use a setting in braces, or not one path matches.
    """
    filled = BRACES.sub(lambda match: _text(pattern, match[1], getattr(config, match[1])), pattern)
    if filled == pattern and not glob.has_magic(filled):
        return filled
    path = Path(filled).expanduser().absolute()
    found = sorted(map(str, Path(path.anchor).glob(str(path.relative_to(path.anchor)))))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"nothing matches {filled}: name a path, or a pattern that one matches")
    more = f" and {len(found) - LISTED} others" if len(found) > LISTED else ""
    raise UserError(
        f"{len(found)} paths match {filled}, as {', '.join(Path(path).name for path in found[:LISTED])}{more}: make it "
        "narrower, as with {seed} or {sparsity}"
    )


def _text(pattern: str, name: str, value: Any) -> str:
    if value is None:
        raise UserError(f"{pattern}: the run has no {name}; give --{name}, or use another pattern")
    return glob.escape(f"{value:g}" if isinstance(value, float) else show(value))


def by_seed(config: RunConfig) -> bool:
    """Whether runs that differ in their seeds may begin with the masks or the weights of different runs."""
    return any("{seed}" in (text or "") for text in (config.initial_topology, config.initial_weights))


def masks_path(config: RunConfig) -> str:
    """The file of the first masks. Raises UserError if no one is named, or it is to be that of a run without masks."""
    first = config.initial_topology
    if first.startswith(FILE):
        return located(first.removeprefix(FILE), config)
    place = find(located(first.removeprefix(FROM_RUN), config))
    path = place.store.root / "runs" / place.id / MASKS
    if not path.is_file():
        why = f"its {MASKS} is gone" if place.result.get("connections_by_layer") else "it is dense"
        raise UserError(
            f"{place.path} has no masks, as {why}: prune it first, by --initial_topology=magnitude "
            f"--initial_weights={TRAINED}{place.path} --epochs=0"
        )
    return str(path)


def source_of(config: RunConfig) -> Source | None:
    """The run that --initial_weights names, if it does. Raises UserError if that is not one finished run."""
    for kind in (ORIGINAL, TRAINED):
        if config.initial_weights.startswith(kind):
            return Source(kind, find(located(config.initial_weights.removeprefix(kind), config)))
    return None


def check_source(config: RunConfig, problem: Problem) -> None:
    """Refuse weights of another network. Raises UserError as `source_of` does, too."""
    source = source_of(config)
    if source is None:
        return
    place, told = source.place, f"--initial_weights={source.kind}{source.place.path}"
    for name in SAME[source.kind]:
        theirs, ours = getattr(place.config, name), getattr(config, name)
        if theirs != ours:
            raise UserError(f"{told} has --{name}={show(theirs)}, and this run {show(ours)}: use the same")
    if place.result["kernels"] != {name: list(shape) for name, shape in problem.kernels.items()}:
        raise UserError(f"{told} has layers of other shapes: use a --dataset with inputs and classes as many as there")
    if source.kind == TRAINED and not place.store.checkpoints(place.result["group"]).is_dir():
        raise lost(place, "gone")
    if config.init_fan == "active":
        raise UserError(f"{told} says what the weights are, and --init_fan=active scales them: use --init_fan=dense")
    if source.kind == ORIGINAL and (place.config.initial_weights != "seed" or place.config.init_fan == "active"):
        raise UserError(f"{told} did not begin with the weights of its seed alone: name a run that did")


def weights_seed(config: RunConfig) -> int:
    """The seed from which the first weights are drawn: the run's own, or that of the run that had them originally."""
    source = source_of(config)
    return source.place.config.seed if source is not None and source.kind == ORIGINAL else config.seed
