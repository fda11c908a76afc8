"""A search for the activation functions of sparse networks, as it is asked for. Imports no jax.

The networks of a search are pipelines: one seed at one sparsity. All that a pipeline goes through, from the network
that it starts from to the ones that are compared at the end, is its own.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from sparse_jax.config import AUTO, RunConfig, SafsConfig, settings
from sparse_jax.errors import UserError
from sparse_jax.flags import Grid
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import NATURES
from sparse_jax.search.files import Place
from sparse_jax.search.safs_checks import check, check_size
from sparse_jax.study.grid import Run, dataset_label, digest, make_study
from sparse_jax.training.problem import Problem
from sparse_jax.values import show

# what of RunConfig a search has no use for: the second stage is about the scaling of functions, weights are its own
_FIXED = ("initial_weights", "activation_alpha", "activation_beta", "activation_scale", "execution")
NETWORK = tuple(name for name in settings(RunConfig) if name not in _FIXED)
LEVELS = ("sparsity", "epsilon")  # of which there may be several
OWN = {"method": "static"}  # other defaults than a study's
HOST = (
    "num_seeds", "first_seed", "workdir", "resume", "dry_run", "data_dir", "checkpoint_seconds", "layout", "lane_width",
    "cpu_devices", "compilation_cache",
)  # fmt: skip
COLUMNS = ("dense", "default", "stage1", "stage2", "both")  # of the table at the end


class Asked(NamedTuple):
    """What the command line says."""

    search: SafsConfig
    networks: Grid  # of NETWORK, one value each but for LEVELS; of StudyConfig what HOST names


class Pipeline(NamedTuple):
    """One seed at one sparsity, as the runs that its trainings are."""

    id: str  # its name in files
    run: Run  # the sparse network, as the method that was asked for trains it
    dense: Run  # by name: its masks are full
    start: Run  # the sparse network that everything starts from, where it is not the dense one pruned
    candidate: Run
    final: Run


class Plan(NamedTuple):
    """A search that can begin."""

    asked: Asked
    pipelines: tuple[Pipeline, ...]
    prunes: bool  # whether the starting network is the dense one, pruned; else a sparse one is trained
    operators: tuple[str, ...]  # what a layer may have: those of the search come first, then default ones
    default: tuple[int, ...]  # their indices in the network that was asked for, one a layer
    notices: tuple[str, ...]  # what the user should know beforehand
    workdir: Path

    @property
    def layers(self) -> int:
        """Activation functions of a network."""
        return len(self.default)

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the table at the end: those of the second stage only if there is one."""
        return COLUMNS if self.asked.search.trials else COLUMNS[:3]

    @property
    def problem(self) -> Problem:
        """Of all networks but for the length of training."""
        return self.pipelines[0].final.problem

    @property
    def config(self) -> RunConfig:
        """Of the first sparse network."""
        return self.pipelines[0].run.config

    @property
    def place(self) -> Place:
        """Where it is kept."""
        grid = self.asked.networks
        return Place(self.workdir, "safs", values_of(self.asked), grid.axes["dataset"][0], grid.study)

    @property
    def description(self) -> str:
        """What would be done, in a few lines."""
        search, problem, count = self.asked.search, self.problem, len(self.pipelines)
        size, (start, candidate, final) = len(search.operators) ** self.layers, self.epochs
        kind = "dense networks, then pruned" if self.prunes else f"dense ones and as many by {self.config.method}"
        lines = [
            f"{count} {'pipelines' if count > 1 else 'pipeline'}: {', '.join(one.id for one in self.pipelines)}",
            f"{problem.train:,} examples for training, {problem.validation:,} for validation, {problem.test:,} for "
            f"the test at the end; {problem.steps_per_epoch:,} steps an epoch",
            f"start: {count} {kind}, {start:,} epochs",
            f"stage 1: {self.tried:,} candidates each by {search.strategy}, of {len(search.operators)} operators in "
            f"{self.layers} layers ({size:,} in all), {candidate:,} epochs",
        ]
        if search.trials:
            lines.append(
                f"stage 2: {search.trials:,} trials each of two by {search.sampler}, {candidate:,} epochs; "
                f"alpha and beta a {search.scale}"
            )
        lines.append(f"at the end: {len(self.columns) - 1} networks each, {final:,} epochs")
        return "\n".join([*lines, f"would write to {self.workdir}"])

    @property
    def tried(self) -> int:
        """Candidates of the first stage of a pipeline; exhaustive fills up its last move."""
        search = self.asked.search
        if search.strategy == "exhaustive":
            return -(-(len(search.operators) ** self.layers) // search.candidates) * search.candidates
        return (search.steps + 1) * search.candidates

    @property
    def epochs(self) -> tuple[int, int, int]:
        """Of the start, a candidate and the end."""
        first = self.pipelines[0]
        return first.dense.config.epochs, first.candidate.config.epochs, first.final.config.epochs


def values_of(asked: Asked) -> dict[str, str]:
    """All that determines the course of a pipeline, as the flags write it: not how many pipelines there are."""
    search = {name: show(getattr(asked.search, name)) for name in settings(SafsConfig) if name != "storage"}
    axes = asked.networks.axes
    return search | {name: show(axes[name][0]) for name in NETWORK if name not in LEVELS}


def make_plan(asked: Asked) -> Plan:
    """Check what is asked for. Raises UserError, one line, for what cannot be searched; nothing is written."""
    search = asked.search
    unused = check(search, asked.networks.given, asked.networks.beside)
    grid = _completed(search, asked.networks)
    method, first = (grid.axes[name][0] for name in ("method", "initial_topology"))
    if method == "dense":
        raise UserError("--method=dense has no sparse network to search for: use static, or another method")
    goes_on = NATURES[method].count in ("constant", "accuracy")
    final = grid.axes["epochs"][0]
    start = final if search.start_epochs == AUTO else search.start_epochs
    if not final:
        raise UserError("--epochs=0 leaves nothing to compare: the networks at the end are trained for --epochs")
    study = make_study(_changed(grid, {"epochs": (final if goes_on else start,)}), {})
    config = study.runs[0].config
    if not study.runs[0].problem.validation:
        raise UserError("--validation_fraction=0 leaves nothing to score candidates by")
    operators, default = _operators(search, config)
    check_size(search, len(default))
    notices = dict.fromkeys((*unused, *study.notices))
    epochs = start, search.candidate_epochs, final
    pipelines = tuple(_pipeline(grid, run, goes_on, epochs, notices) for run in study.runs)
    plan = Plan(asked, pipelines, goes_on and first == "magnitude", operators, default, tuple(notices), Path())
    return plan._replace(workdir=_workdir(plan))


def _pipeline(grid: Grid, run: Run, goes_on: bool, epochs: tuple[int, int, int], notices: dict[str, None]) -> Pipeline:
    """The runs of a pipeline, of the start, a candidate and the end; what is to be told of them goes into `notices`."""
    study = dataclasses.replace(grid.study, num_seeds=1, first_seed=run.config.seed)
    own = Grid(grid.axes | {name: (getattr(run.config, name),) for name in LEVELS}, study, frozenset())
    drawn = {"initial_topology": ("random",)}  # by name: they are given their masks
    if own.axes["allocation"] == ("global",):
        drawn |= {"allocation": (AUTO,)}
    kept = _changed(own, drawn)
    still = _changed(kept, {"method": ("static",)})
    kept = kept if goes_on else still
    start, candidate, final = epochs
    return Pipeline(
        _label(run.config),
        run,
        dense=_of_stage(still, "start_epochs", start, {}),
        start=_of_stage(own, "start_epochs", start, notices),
        candidate=_of_stage(kept, "candidate_epochs", candidate, notices),
        final=_of_stage(kept, "epochs", final, notices),
    )


def _of_stage(grid: Grid, flag: str, epochs: int, notices: dict[str, None]) -> Run:
    """The one run of a grid, for so many epochs, which a flag says."""
    try:
        study = make_study(_changed(grid, {"epochs": (epochs,)}), {})
    except UserError as error:
        raise UserError(f"--{flag}={epochs}: {error}") from None
    notices.update({f"--{flag}={epochs}: {notice}": None for notice in study.notices if notice not in notices})
    return study.runs[0]


def _completed(search: SafsConfig, grid: Grid) -> Grid:
    """With the settings that no flag of a search sets; a static topology is, unless asked otherwise, a pruned one.

    What the operators and the schedules of a search use counts as not given: the network itself need not use it.
    """
    config, axes = RunConfig(), grid.axes
    axes = {name: (getattr(config, name),) for name in _FIXED} | axes
    if axes["method"] == ("static",) and axes["initial_topology"] == (AUTO,):
        axes |= {"initial_topology": ("magnitude",)}
    if axes["initial_topology"] == ("magnitude",) and axes["allocation"] == (AUTO,) and axes["epsilon"] == (None,):
        axes |= {"allocation": ("uniform",)}
    used = {"all_relu_alpha"} if "all_relu" in search.operators else set()
    used |= {"lr_decay_at", "lr_decay_factor"} if search.trials and "step" in search.tuned_schedules else set()
    return grid._replace(axes=axes, given=grid.given - used, beside=grid.beside - used)


def _changed(grid: Grid, changes: dict[str, tuple]) -> Grid:
    return grid._replace(axes=grid.axes | changes)


def _label(config: RunConfig) -> str:
    levels = {name[0]: value for name in LEVELS if (value := getattr(config, name)) is not None}
    level = "".join(f"{letter}{str(value).removesuffix('.0')}-" for letter, value in levels.items())
    return f"{level}seed{config.seed}"


def _operators(search: SafsConfig, config: RunConfig) -> tuple[tuple[str, ...], tuple[int, ...]]:
    layers = OUTLINES[config.model].activations(config)
    default = config.activation if len(config.activation) > 1 else config.activation * layers
    operators = tuple(dict.fromkeys((*search.operators, *default)))
    return operators, tuple(operators.index(name) for name in default)


def _workdir(plan: Plan) -> Path:
    asked = plan.asked.networks.study.workdir
    if asked != AUTO:
        return Path(asked).expanduser()
    label = f"{dataset_label(plan.config.dataset)}-{plan.config.model}-safs"
    return Path("results") / f"{label}-{digest(list(values_of(plan.asked).items()))}"


def program_config(run: Run, grid: Grid) -> RunConfig:
    """The configuration of a program in which what a search is over is data: nothing of it is left unused."""
    config, names = RunConfig(), ("momentum", "lr_decay_at", "lr_decay_factor", "all_relu_alpha")
    asked = {name: grid.axes[name][0] for name in names}
    values = {name: getattr(config, name) if value is None else value for name, value in asked.items()}
    return dataclasses.replace(run.config, **values)
