"""What the stages of a search for activation functions have in common: their data, programs and first networks."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.activations.choice import Operators
from sparse_jax.config import OPTIMIZER_SLOTS, RunConfig
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.normalization import fit
from sparse_jax.data.splits import Splits
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.recipes import NATURES
from sparse_jax.search.records import Records
from sparse_jax.search.safs_plan import LEVELS, Pipeline, Plan, program_config
from sparse_jax.search.side_by_side import SideBySide, Trained, Watch
from sparse_jax.study.grid import Run
from sparse_jax.study.interrupt import Interrupt
from sparse_jax.study.memory import bytes_per_run
from sparse_jax.study.meter import Meter
from sparse_jax.topology.initial import from_scores_globally
from sparse_jax.topology.masks import Masks, Weights, select
from sparse_jax.topology.moves import choose
from sparse_jax.training.flops import products, step
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.parts import Choices, make_rule, rates_of
from sparse_jax.training.state import Chosen, HyperParams

NETWORKS, CHECKPOINTS = "networks", "checkpoint"  # folders of the workdir
SCORES = ("accuracy", "loss", "diverged", "epochs", "seconds")  # what a line says of how a network did


class Tuned(NamedTuple):
    """The hyper-parameters of a training."""

    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    lr_schedule: str


class Sparse(NamedTuple):
    """A network of which every training of a pipeline begins, on the host."""

    network: dict[str, Any]  # params, also outside the masks, and model_state
    masks: dict[str, np.ndarray]


class End(NamedTuple):
    """A network of a pipeline as it is trained: what the search is over."""

    operators: tuple[int, ...]  # indices, one a layer
    scaled: bool  # whether α and β are trained
    tuned: Tuned


class Work(NamedTuple):
    """A search at work."""

    plan: Plan
    hardware: Hardware
    interrupt: Interrupt
    workdir: Path
    data: Data  # without the test part
    dataset: str  # its digest
    records: Records
    meter: Meter
    programs: dict[RunConfig, SideBySide]  # those that were compiled

    def watch(self, line: str) -> Watch:
        """What a training looks at; `line` tells of it."""
        seconds = self.plan.place.host.checkpoint_seconds

        def advance(epochs: float) -> None:
            self.meter.advance(line, epochs)

        return Watch(self.interrupt, advance, self.workdir / CHECKPOINTS, seconds)

    def side_by_side(self, run: Run) -> SideBySide:
        """The program of a run, for as many networks at once as a stage has, or there is room for.

        All stages have one number, so that they share programs; a network that is not there takes no time.
        """
        choices, plan = choices_of(self.plan), self.plan
        config = dataclasses.replace(program_config(run, plan.asked.networks), **dict.fromkeys(LEVELS), seed=0)
        if config not in self.programs:
            slots = sum(OPTIMIZER_SLOTS[name] for name in choices.optimizers)
            weights = sum(int(np.prod(shape)) for shape in run.problem.kernels.values())
            room = self.hardware.group_size(bytes_per_run(run) + 4 * slots * weights)
            lanes = min(room, len(plan.pipelines) * max(plan.asked.search.candidates, len(plan.columns) - 1))
            self.programs[config] = SideBySide(config, run.problem, choices, self.hardware, lanes, self.data)
        return self.programs[config]


def learning_data(plan: Plan, parts: Splits) -> Data:
    """The training part, then the validation part: what a search may see."""
    end, train = parts.train + parts.validation, parts.x[: parts.train]
    return Data(parts.x[:end], parts.y[:end], fit(plan.config.normalization, train), levels_of(train))


def test_data(data: Data, parts: Splits) -> Data:
    """The test part, normalised as the others."""
    end = parts.train + parts.validation
    return data._replace(x=parts.x[end:], y=parts.y[end:])


def choices_of(plan: Plan) -> Choices:
    """What is data to the programs of a search."""
    search, config = plan.asked.search, program_config(plan.pipelines[0].run, plan.asked.networks)
    operators = Operators(plan.operators, config.all_relu_alpha, search.scale)
    if not search.trials:
        return Choices(operators, (config.optimizer,), (config.lr_schedule,))
    optimizers = tuple(dict.fromkeys((config.optimizer, *search.tuned_optimizers)))
    return Choices(operators, optimizers, tuple(dict.fromkeys((config.lr_schedule, *search.tuned_schedules))))


def untuned(run: Run) -> Tuned:
    """The hyper-parameters that were asked for."""
    config = run.config
    momentum = RunConfig.momentum if config.momentum is None else config.momentum
    return Tuned(config.optimizer, config.learning_rate, momentum, config.weight_decay, config.lr_schedule)


def chosen(plan: Plan, end: End) -> Chosen:
    """What a network has of what the search is over."""
    choices = choices_of(plan)
    return Chosen(
        operator=np.array(end.operators, np.int32),
        scaled=np.bool_(end.scaled),
        optimizer=np.int32(choices.optimizers.index(end.tuned.optimizer)),
        momentum=np.float32(end.tuned.momentum),
        lr_schedule=np.int32(choices.lr_schedules.index(end.tuned.lr_schedule)),
    )


def begin(plan: Plan, pipeline: Pipeline, run: Run, sparse: Sparse, end: End) -> HyperParams:
    """What a training of a pipeline begins with, on the host; `run` is one of it."""
    seed, counts = np.uint32(run.config.seed), {name: np.int32(mask.sum()) for name, mask in sparse.masks.items()}
    shrinks = NATURES[run.config.method].count == "accuracy"
    return HyperParams(
        seed=seed,
        weights_seed=seed,
        start=counts,
        counts={name: np.int32(count) for name, count in pipeline.run.final.items()} if shrinks else counts,
        rates=rates_of(run.config),
        masks=dict(sparse.masks),
        network=sparse.network,
        learning_rate=np.float32(end.tuned.learning_rate),
        weight_decay=np.float32(end.tuned.weight_decay),
        chosen=chosen(plan, end),
    )


def unmasked(run: Run) -> dict[str, np.ndarray]:
    """Masks of a dense network, for a program of sparse ones."""
    return {name: np.ones(shape, bool) for name, shape in run.problem.masked_shapes.items()}


def pruned(run: Run, params: Any) -> Masks:
    """The connections of largest |w|, as many in every layer as the run has, or in all of them with allocation global.

    One-time pruning by magnitude; a structure, such as 2:4, is kept.
    """
    config, problem = run.config, run.problem
    sizes: Weights = {name: jnp.abs(jnp.asarray(weight)) for name, weight in select(params, problem.masked).items()}
    if config.allocation == "global":
        return jax.device_get(from_scores_globally(sizes, jnp.int32(sum(run.start.values()))))
    rule = make_rule(config, list(problem.kernels)[-1], {name: jnp.float32(v) for name, v in rates_of(config).items()})
    counts = {name: jnp.int32(count) for name, count in run.start.items()}
    return jax.device_get(choose(rule._replace(scope="layer"), sizes, counts))


def training_flops(run: Run, masks: Mapping[str, np.ndarray], epochs: int) -> float:
    """Theoretical FLOPs of the optimiser steps of a training (`training.flops`), at the connections it begins with."""
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    applications = OUTLINES[run.config.model].applications(run.config, run.problem.input_shape)
    examples = epochs * run.problem.steps_per_epoch * run.config.batch_size
    return float(examples * step(run.config, products(run.problem.kernels, applications, counts, counts)))


def as_tuned(values: Mapping[str, Any]) -> Tuned:
    """The hyper-parameters of a line of candidates.jsonl."""
    return Tuned(**{name: values[name] for name in Tuned._fields})


def named(plan: Plan, operators: Iterable[int]) -> list[str]:
    """The names of operators."""
    return [plan.operators[index] for index in operators]


def scores_of(trained: Trained) -> dict[str, Any]:
    """How a network did, as a line says it."""
    return {name: getattr(trained, name) for name in SCORES}


def identity(pipeline: Pipeline) -> dict[str, Any]:
    """What every line says of its pipeline."""
    config = pipeline.run.config
    return {"pipeline": pipeline.id, "sparsity": config.sparsity, "epsilon": config.epsilon, "seed": config.seed}

