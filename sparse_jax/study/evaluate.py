"""What a trained network scores on the parts of its own data set, or on the test part of another; and its export."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from sparse_jax.config import StudyConfig
from sparse_jax.data.arrays import Arrays, DatasetInfo, info_of
from sparse_jax.data.augmentation import levels_of
from sparse_jax.data.batches import Data
from sparse_jax.data.catalog import make_reader
from sparse_jax.data.normalization import Normalization, fit
from sparse_jax.data.splits import PARTS, Splits, split
from sparse_jax.errors import UserError
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.study import export
from sparse_jax.study.finished import FinishedRun, find
from sparse_jax.study.rows import number, share
from sparse_jax.study.summary import make_console
from sparse_jax.study.trained import Trained, load, problem_of
from sparse_jax.training.checkpoint import digest
from sparse_jax.training.cohort import make_cohort, replicate
from sparse_jax.training.feed import Feed, Resident, Streamed, score_part
from sparse_jax.training.flops import product
from sparse_jax.training.hardware import Hardware, set_up
from sparse_jax.training.problem import Problem
from sparse_jax.training.train import make_train

NONE = "–"


class Score(NamedTuple):
    """What a network scores on a part of a data set."""

    accuracy: float
    loss: float  # mean
    examples: int


class Own(NamedTuple):
    """What a run was trained on, and what follows from it."""

    info: DatasetInfo
    parts: Splits
    normalization: Normalization


def evaluate_run(run: str, dataset: str, data_dir: str, which: str, folder: str) -> int:
    """Print what the network of a finished run scores, and export it.

    Args:
      run: path of the folder of the run.
      dataset: name or path of another data set, to evaluate its test part; "" for the run's own.
      data_dir: folder of the data sets.
      which: FINAL or BEST of `study.trained`.
      folder: to export to; "" for nowhere.

    Returns:
      the exit status, 0.

    Raises:
      UserError: for bad input; nothing has been written then.
    """
    place = find(run)
    if folder:
        export.check_folder(folder)
    hardware, read = set_up(StudyConfig()), make_reader(data_dir)
    trained = load(place, which)
    own = read_own(place, read)
    problem = problem_of(trained, own.info)
    other = dataset if dataset != place.config.dataset else ""
    parts = _test_part(own, other, read(other)) if other else own.parts
    scores = score(hardware, trained, problem, own, parts)
    console = make_console()
    _print_scores(console, trained, own, other, scores)
    if folder:
        named = {other or place.config.dataset: {part: of_part._asdict() for part, of_part in scores.items()}}
        for line in export.export(trained, problem, own.normalization, own.parts, named, folder):
            console.print(line, soft_wrap=True)
    return 0


def read_own(place: FinishedRun, read: Callable[[str], Arrays]) -> Own:
    """The data that a run was trained on, split as then. Raises UserError where they are not the same any more."""
    config = place.config
    arrays = read(config.dataset)
    if place.data.get(config.dataset) != digest(arrays):
        raise UserError(
            f"the data set {config.dataset} is not the one that {place.path} was trained on: restore that one"
        )
    info = info_of(config.dataset, arrays)
    parts = split(
        arrays, train_size=config.train_size, test_size=config.test_size, validation_fraction=config.validation_fraction
    )
    return Own(info, parts, fit(config.normalization, parts.x[: parts.train]))


def _test_part(own: Own, name: str, arrays: Arrays) -> Splits:
    """The test part of another data set. Raises UserError unless a network of the run's own takes its examples."""
    facts = [
        (info.input_shape, info.classes, x.dtype.name)
        for info, x in ((info_of(name, arrays), arrays.x_test), (own.info, own.parts.x))
    ]
    if facts[0] != facts[1]:
        other, trained = (f"{'×'.join(map(str, shape))} {dtype}, {count} classes" for shape, count, dtype in facts)
        raise UserError(
            f"--dataset={name} ({other}) is not like {own.info.name} ({trained}), on which the run was trained: "
            "name one with the same inputs and as many classes"
        )
    return Splits(arrays.x_test, arrays.y_test, 0, 0, len(arrays.y_test))


def score(hardware: Hardware, trained: Trained, problem: Problem, own: Own, parts: Splits) -> dict[str, Score]:
    """Accuracy and loss on every part that has examples, by the program that evaluated the run when it ended."""
    mesh, _ = hardware.place(1)
    evaluate = make_cohort(make_train(trained.config, problem), hardware.layout, mesh).evaluate
    network = trained.params, trained.model_state
    variables = replicate(jax.tree.map(lambda leaf: np.asarray(leaf)[None], network), mesh)  # of one run
    feed, scores = _feed(hardware, mesh, problem.steps, own, parts, trained.config.batch_size), {}
    for index, (name, examples) in enumerate(zip(PARTS, parts[2:], strict=True)):
        if not examples:
            continue
        found = score_part(evaluate, feed, index, variables)
        scores[name] = Score(share(found.correct[0], examples), number(found.loss[0]), examples)
    return scores


def _feed(
    hardware: Hardware, mesh: jax.sharding.Mesh, steps: int, own: Own, parts: Splits, batch_size: int
) -> Feed:
    """The parts on a device, or their training examples as they stream from the host."""
    streams = not hardware.holds(parts.x.nbytes + parts.y.nbytes)
    first, levels = parts.train if streams else 0, levels_of(own.parts.x[: own.parts.train])
    data = replicate(Data(parts.x[first:], parts.y[first:], own.normalization, levels), mesh)
    if streams:
        return Streamed(data, parts, np.zeros(1, np.uint32), batch_size, steps, mesh)
    return Resident(data, np.cumsum([0, *parts[2:]], dtype=np.int32))


# --- what is printed -------------------------------------------------------------------------------


def inference_flops(trained: Trained, own: Own) -> int:
    """Of one example (`training.flops`)."""
    applications = OUTLINES[trained.config.model].applications(trained.config, own.info.input_shape)
    return product(trained.kernels, applications, trained.connections)


def _print_scores(console: Console, trained: Trained, own: Own, other: str, scores: dict[str, Score]) -> None:
    console.print(f"{trained.place.id}, {trained.which} network", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("part", "accuracy in %", "loss", "examples"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part, of_part in scores.items():
        loss = f"{of_part.loss:.4f}" if math.isfinite(of_part.loss) else NONE
        table.add_row(part, f"{100 * of_part.accuracy:.2f}", loss, f"{of_part.examples:,}")
    console.print(table)
    if other:
        console.print(f"of {other}, with the normalisation fitted to the training part of {own.info.name}")
    sizes = {name: math.prod(shape) for name, shape in trained.kernels.items()}
    connections, size = sum((sizes | trained.connections).values()), sum(sizes.values())
    lines = Table.grid(padding=(0, 2))
    lines.add_row("execution", trained.config.execution)
    lines.add_row("connections", f"{connections:,} of {size:,}, sparsity {1 - connections / size:.4f}")
    lines.add_row("FLOPs", f"{inference_flops(trained, own):,} an example")
    console.print(lines)
