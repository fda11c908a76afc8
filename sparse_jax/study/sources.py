"""The finished runs and files that a run begins with, instead of drawing its own. Imports no jax."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.config import FILE, FROM_RUN, ORIGINAL, TRAINED, RunConfig
from sparse_jax.errors import UserError
from sparse_jax.study.finished import FinishedRun, find, lost
from sparse_jax.study.store import MASKS
from sparse_jax.training.problem import Problem
from sparse_jax.values import BRACES, show

LISTED = 3  # of the paths that a message names
_SHAPING = ("model", "hidden_sizes", "depth", "width", "heads", "patch_size")  # the parameters of a network
_FUNCTIONS = (
    "activation", "activation_scale", "activation_alpha", "activation_beta", "all_relu_alpha", "gate_activation",
)
SAME = {ORIGINAL: (*_SHAPING, "initializer"), TRAINED: (*_SHAPING, *_FUNCTIONS)}
Known = Mapping[str, Mapping[str, str]]


class Found(NamedTuple):
    """Where a setting leads that names another run or a file."""

    name: str  # its value, with the settings of the run in place of the braces
    path: str


class Lent(NamedTuple):
    """What a run begins with of other runs and files: found once, when its study is planned."""

    masks: Found | None = None  # the file of its first masks
    weights: Found | None = None  # the run of its first weights
    kind: str = ""  # ORIGINAL or TRAINED weights
    lender: FinishedRun | None = None  # the run of the weights

    def weights_seed(self, own: int) -> int:
        """The seed from which the first weights are drawn: that of the run that began with them, or one's own."""
        return self.lender.config.seed if self.kind == ORIGINAL else own


def by_seed(config: RunConfig) -> bool:
    """Whether runs that differ in their seeds may begin with the masks or the weights of different runs."""
    return any("{seed}" in (text or "") for text in (config.initial_topology, config.initial_weights))


def lent_to(config: RunConfig, known: Known) -> Lent:
    """What a run is lent.

    Args:
      config: before times and executions are resolved: braces hold what the user said.
      known: name -> what config.json says of it; of use where a pattern has become ambiguous, or leads nowhere.

    Raises:
      UserError: a pattern does not lead to one finished run, or not to masks.
    """
    masks, first = None, config.initial_topology or ""
    if first.startswith(FILE):
        masks = locate(first, FILE, config, known)
    elif first.startswith(FROM_RUN):
        masks = locate(first, FROM_RUN, config, known)
        masks = masks._replace(path=_masks_of(find(masks.path)))
    for kind in (ORIGINAL, TRAINED):
        if config.initial_weights.startswith(kind):
            weights = locate(config.initial_weights, kind, config, known)
            return Lent(masks, weights, kind, find(weights.path))
    return Lent(masks)


def locate(value: str, form: str, config: RunConfig, known: Known) -> Found:
    """Where a setting leads that begins with a form; see `lent_to`."""
    name = BRACES.sub(lambda match: _text(value, match[1], getattr(config, match[1])), value)
    filled = name.removeprefix(form)
    path = Path(filled).expanduser()
    if path.exists() or not glob.has_magic(filled):
        return Found(name, filled)
    try:
        path = path.absolute()
        there = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        found = sorted(str(one) for one in there if form == FILE or one.is_dir())  # runs are folders
    except (OSError, ValueError) as error:
        raise UserError(f"{filled} is no pattern: {error}") from None
    if len(found) == 1:
        return Found(name, found[0])
    if name in known:
        return Found(name, known[name]["path"])
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


def _masks_of(lender: FinishedRun) -> str:
    """The file of the masks of a run. Raises UserError if it has none."""
    path = lender.store.root / "runs" / lender.id / MASKS
    if path.is_file():
        return str(path)
    why = f"its {MASKS} is gone" if lender.result.get("connections_by_layer") else "it is dense"
    raise UserError(
        f"{lender.path} has no masks, as {why}: prune it first, by --initial_topology=magnitude "
        f"--initial_weights={TRAINED}{lender.path} --epochs=0"
    )


def check_lender(config: RunConfig, problem: Problem, lent: Lent) -> None:
    """Refuse weights of another network, and those that are not there."""
    if lent.lender is None:
        return
    lender, told = lent.lender, f"--initial_weights={lent.kind}{lent.lender.path}"
    for name in SAME[lent.kind]:
        theirs, ours = getattr(lender.config, name), getattr(config, name)
        if theirs != ours:
            raise UserError(f"{told} has --{name}={show(theirs)}, and this run {show(ours)}: use the same")
    shapes = {name: list(shape) for name, shape in problem.kernels.items()}
    if (lender.result["kernels"], lender.result["input_shape"]) != (shapes, list(problem.input_shape)):
        raise UserError(f"{told} has layers of other shapes: use a --dataset with inputs and classes as there")
    if config.init_fan == "active":
        raise UserError(f"{told} says what the weights are, and --init_fan=active scales them: use --init_fan=dense")
    if lent.kind == ORIGINAL and (lender.config.initial_weights != "seed" or lender.config.init_fan == "active"):
        raise UserError(f"{told} did not begin with the weights of its seed alone: name a run that did")
    if lent.kind == TRAINED and lender.result["status"] == "diverged":
        raise UserError(f"{told} has diverged, so that its weights are of no use: name another run")
    if lent.kind == TRAINED and not lender.store.checkpoints(lender.result["group"]).is_dir():
        raise lost(lender, "gone")


def check_room(config: RunConfig, counts: Mapping[str, int], lent: Lent) -> None:
    """Refuse to rank the trained weights of a sparse run for more connections than it has: the others are zero."""
    if lent.kind != TRAINED or config.initial_topology != "magnitude":
        return
    has = lent.lender.result["connections_by_layer"]
    fewer = [name for name, count in counts.items() if count > has.get(name, count)]
    if fewer if config.allocation != "global" else has and sum(counts.values()) > sum(has.values()):
        layers = ", ".join(name.removesuffix("/kernel") for name in fewer or has)
        raise UserError(f"{lent.lender.path} has fewer connections in {layers} than that: prune more")
