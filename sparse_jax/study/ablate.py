"""What trained networks can do without: which runs are examined, and how. Imports jax only when all is in order."""

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.config import (
    ABLATION_EDITS,
    ABLATION_ORDERS,
    ABLATION_SCOPES,
    ORDERS_BY_EXAMPLES,
    SHARED_WEIGHT,
    SHARED_WEIGHTS,
    AblationConfig,
    RunConfig,
    settings,
)
from sparse_jax.errors import UserError, unknown
from sparse_jax.study.finished import FinishedRun, find, find_all, is_workdir
from sparse_jax.study.resolve import settings_of

NOTHING = "none"  # of orders, or of edits
MOST_STEPS = 2**31 - 1
SECTIONS = ("1 data", "2 model", "5 optimisation")  # of the settings that a trained network brings along
LISTED = 3  # of the runs that a notice names


class Experiment(NamedTuple):
    """One thing that is done to every network."""

    kind: str  # order, edit, or SHARED_WEIGHT
    name: str
    scope: str | None  # of orders
    steps: int  # of training afterwards

    def settings(self, request: AblationConfig) -> dict[str, Any]:
        """What determines its result, beside the network."""
        values = self._asdict()
        values["retrain_steps"] = values.pop("steps")
        order = self.kind == "order"
        return values | {
            "retrain_rate": request.retrain_rate if self.steps else None,
            "part": request.part,
            "which": request.which,
            "layers": "" if self.kind == SHARED_WEIGHT else request.layers,
            "fractions": sorted(request.fractions) if order and self.name != "decile" else None,
            "examples": request.examples if self.name in ORDERS_BY_EXAMPLES else None,
            "weights": list(SHARED_WEIGHTS) if self.kind == SHARED_WEIGHT else None,
        }


def check(request: AblationConfig) -> list[Experiment]:
    """The experiments that are asked for. Raises UserError for what they cannot be."""
    orders, edits = _chosen("order", request.orders, ABLATION_ORDERS), _chosen("edit", request.edits, _EDITS)
    scopes, steps = request.scopes, request.retrain_steps
    _known("scope", scopes, ABLATION_SCOPES)
    for fraction in request.fractions:
        if not 0 <= fraction <= 1:
            raise UserError(f"--fractions={fraction:g} is outside [0, 1]")
    for flag, values in (("fractions", request.fractions), ("scope", scopes), ("retrain_steps", steps)):
        if not values or len(set(values)) < len(values):
            raise UserError(f"--{flag} names {'a value twice' if values else 'none'}")
    for count in steps:
        if not 0 <= count <= MOST_STEPS:
            raise UserError(f"--retrain_steps={count} is outside [0, {MOST_STEPS}]")
    if not math.isfinite(request.retrain_rate):
        raise UserError(f"--retrain_rate={request.retrain_rate:g} is no factor of a learning rate")
    _pattern(request.layers)
    found = [Experiment("order", name, scope, count) for count in steps for scope in scopes for name in orders]
    found += [Experiment("edit", name, None, count) for count in steps for name in edits if name != SHARED_WEIGHT]
    found += [Experiment(SHARED_WEIGHT, SHARED_WEIGHT, None, 0)] * (SHARED_WEIGHT in edits)
    if not found:
        raise UserError("nothing is asked for: name an --order or an --edit")
    return found


_EDITS = (*ABLATION_EDITS, SHARED_WEIGHT)


def _chosen(flag: str, names: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a family, each once; none of them by the name NOTHING."""
    if tuple(names) == (NOTHING,):
        return ()
    if NOTHING in names:
        raise UserError(f"--{flag}={','.join(names)}: {NOTHING} stands alone")
    _known(flag, names, known)
    return tuple(dict.fromkeys(names))


def _known(flag: str, names: Sequence[str], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise unknown(flag, name, known)


def _pattern(text: str) -> re.Pattern:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"--layers={text!r} is not a regular expression: {error}") from error


def runs_at(paths: Sequence[str]) -> list[FinishedRun]:
    """The finished runs that paths name: each that of a run, or of a workdir for all of its.

    Raises:
      UserError: a path is neither, or has no finished run.
    """
    found: dict[tuple[Path, str], FinishedRun] = {}
    for path in paths:
        for run in find_all(path) if is_workdir(Path(path).expanduser()) else [find(path)]:
            found.setdefault((run.store.root, run.id), run)
    return list(found.values())


def examined(config: RunConfig) -> RunConfig:
    """The settings of a finished run as far as its network has them, trained on with its connections as they are.

    Equal for networks of equal shape on equal data, whatever method, sparsity or seed made them: those share one
    program. Learning rate and weight decay are 0: every network has its own.
    """
    kept = [name for name, field in settings(RunConfig).items() if field.metadata["section"] in SECTIONS]
    changes = {
        "method": "static", "sparsity": 0.0, "initial_weights": "seed", "init_fan": "dense", "lr_schedule": "constant",
        "warmup_epochs": 0.0, "ema": 0.0, "epochs": 1, "learning_rate": 0.0, "weight_decay": 0.0,
    }  # fmt: skip
    return settings_of(RunConfig(**{name: getattr(config, name) for name in kept} | changes))


def layers_of(pattern: str, kernels: Sequence[str]) -> tuple[str, ...]:
    """The kernels that lose connections. Raises UserError for a pattern that matches none."""
    found = tuple(name for name in kernels if _pattern(pattern).search(name.removesuffix("/kernel")))
    if not found:
        names = ", ".join(name.removesuffix("/kernel") for name in kernels)
        raise UserError(f"--layers={pattern!r} matches no layer. Layers: {names}")
    return found


def tell_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    """Say which runs are left out, and why: (run, reason)."""
    reasons: dict[str, list[str]] = {}
    for run, reason in skipped:
        reasons.setdefault(reason, []).append(run)
    for reason, runs in reasons.items():
        more = f" and {len(runs) - LISTED} more" if len(runs) > LISTED else ""
        print(f"skipped {', '.join(runs[:LISTED])}{more}: {reason}", file=sys.stderr)


def ablate(paths: Sequence[str], request: AblationConfig) -> int:
    """Examine finished runs, and add what was found to their workdirs; the exit status.

    Raises:
      UserError: for bad input, or if no run is left to examine; nothing has been written then.
    """
    experiments = check(request)
    if not all(paths) or not paths:
        raise UserError("which runs? Name a workdir, or WORKDIR/runs/RUN")
    runs = runs_at(paths)
    from sparse_jax.study.examine import examine

    return examine(runs, experiments, request)
