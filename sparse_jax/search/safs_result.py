"""The end of a search for activation functions: the networks on the test part, as result.json and as a table."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.table import Table

from sparse_jax.activations.choice import learned
from sparse_jax.analysis.statistics import mean_interval
from sparse_jax.data.batches import Data
from sparse_jax.search.files import RESULT
from sparse_jax.search.safs_networks import DENSE, Start
from sparse_jax.search.safs_stage1 import Operators
from sparse_jax.search.safs_work import End, Work, choices_of, identity, named
from sparse_jax.search.side_by_side import Trained
from sparse_jax.study.files import dump_json, read_object, write_atomic
from sparse_jax.study.summary import CONFIDENCE, make_console
from sparse_jax.training.state import Evaluation

DIGITS = 6  # of accuracies and losses, after the point
CURVE = np.round(np.linspace(-4, 4, 81), 1).astype(np.float32)  # where learned functions are shown
NAMES = {
    "dense": "dense", "default": "sparse", "stage1": "+ operators", "stage2": "+ alpha, beta, tuning", "both": "+ both",
}  # fmt: skip


class Ended(NamedTuple):
    """All that a search has come to, by pipeline."""

    starts: Sequence[Start]
    found: Sequence[Operators]
    ends: Sequence[Mapping[str, End]]  # by column
    networks: Sequence[Mapping[str, Trained]]  # by column


def conclude(work: Work, ended: Ended, read_test: Callable[[], Data]) -> None:
    """Measure all networks on the test part, which is read here and nowhere else; write result.json, print a table.

    What result.json says of other pipelines, of an earlier command, stays.
    """
    plan, before = work.plan, read_object(work.workdir / RESULT) or {"pipelines": [], "curves": []}
    columns = [{DENSE: start.dense, **own} for start, own in zip(ended.starts, ended.networks, strict=True)]
    tested = _tested(work, columns, read_test())
    pipelines = [
        _pipeline(work, place, ended, own, evaluations)
        for place, (own, evaluations) in enumerate(zip(columns, tested, strict=True))
    ]
    ours = {one["pipeline"] for one in pipelines}
    others = [one for one in before["pipelines"] if one["pipeline"] not in ours]
    pipelines = sorted(others + pipelines, key=lambda one: (one["sparsity"] or 0, one["epsilon"] or 0, one["seed"]))
    curves = [one for one in before["curves"] if one["pipeline"] not in ours]
    result = {
        "search": "safs",
        "settings": dict(plan.place.values),
        "dataset": plan.config.dataset,
        "model": plan.config.model,
        "method": plan.config.method,
        "layers": [f"activation_{i}" for i in range(plan.layers)],
        "seconds": _seconds(work, pipelines),
        "pipelines": pipelines,
        "table": _table(plan.columns, pipelines),
        "gains": _gains(plan.columns, pipelines),
        "curves": curves + [curve for at, own in enumerate(columns) for curve in _curves(work, at, ended, own)],
    }
    write_atomic(work.workdir / RESULT, dump_json(result, indent=1))
    _print(work, result)


def _tested(
    work: Work, columns: Sequence[Mapping[str, Trained]], data: Data
) -> list[dict[str, Evaluation]]:
    """The evaluations of all networks, by pipeline and column."""
    plan = work.plan
    networks = [one.network for own in columns for one in own.values()]
    variables = [{name: network[name] for name in ("params", "model_state")} for network in networks]
    program = work.side_by_side(plan.pipelines[0].final)
    found = iter(program.evaluate(variables, data))
    return [{column: next(found) for column in own} for own in columns]


def _pipeline(
    work: Work, place: int, ended: Ended, columns: Mapping[str, Trained], tested: Mapping[str, Evaluation]
) -> dict[str, Any]:
    plan, ends = work.plan, ended.ends[place]
    pipeline, config = plan.pipelines[place], plan.pipelines[place].run.config
    tuned = {column: end.tuned._asdict() for column, end in ends.items() if end.scaled}
    scales = {column: learned(choices_of(plan).operators, columns[column].network, CURVE) for column in tuned}
    return {
        "pipeline": pipeline.id,
        "sparsity": config.sparsity,
        "epsilon": config.epsilon,
        "seed": config.seed,
        "connections": sum(int(mask.sum()) for mask in ended.starts[place].sparse.masks.values()),
        "operators": named(plan, ended.found[place]),
        "default": named(plan, plan.default),
        "hyperparameters": tuned,
        "networks": {column: _network(work, one, tested[column]) for column, one in columns.items()},
        "scales": {column: [{"alpha": one.alpha, "beta": one.beta} for one in own] for column, own in scales.items()},
    }


def _network(work: Work, trained: Trained, evaluation: Evaluation) -> dict[str, Any]:
    correct, masks = int(evaluation.correct), trained.network["masks"]
    return {
        "validation_accuracy": round(trained.accuracy, DIGITS),
        "test_accuracy": round(correct / work.plan.problem.test, DIGITS),
        "test_loss": round(float(evaluation.loss), DIGITS),
        "diverged": trained.diverged,
        "connections": sum(int(mask.sum()) for mask in masks.values()),
        "epochs": trained.epochs,
        "seconds": round(trained.seconds, 2),
    }


def _curves(
    work: Work, place: int, ended: Ended, columns: Mapping[str, Trained]
) -> Iterator[dict[str, Any]]:
    """The functions of the networks at the end of a pipeline, layer by layer."""
    plan, own = work.plan, identity(work.plan.pipelines[place])
    for column, end in ended.ends[place].items():
        functions = learned(choices_of(plan).operators, columns[column].network, CURVE)
        for layer, (name, function) in enumerate(zip(named(plan, end.operators), functions, strict=True)):
            y = [float(f"{value:.6g}") for value in function.curve]
            yield {**own, "column": column, "layer": layer, "operator": name, "x": CURVE, "y": y}


def _seconds(work: Work, pipelines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """That the trainings of every stage took, all pipelines together."""
    networks = [one["networks"] for one in pipelines]
    stages: dict[str, float] = {"start": sum(own[DENSE]["seconds"] for own in networks)}
    for line in work.records.lines:
        stages[line["stage"]] = stages.get(line["stage"], 0.0) + line["seconds"]
    stages["final"] = sum(one["seconds"] for own in networks for column, one in own.items() if column != DENSE)
    return {stage: round(seconds, 2) for stage, seconds in stages.items()}


# --- the table -------------------------------------------------------------------------------------


def _levels(pipelines: Sequence[Mapping[str, Any]]) -> dict[tuple, list[Mapping[str, Any]]]:
    """The pipelines that differ in their seeds only, by (sparsity, epsilon)."""
    levels: dict[tuple, list[Mapping[str, Any]]] = {}
    for one in pipelines:
        levels.setdefault((one["sparsity"], one["epsilon"]), []).append(one)
    return levels


def _accuracies(column: str, pipelines: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Test accuracy by seed."""
    return {one["seed"]: one["networks"][column]["test_accuracy"] for one in pipelines if column in one["networks"]}


def _table(columns: Sequence[str], pipelines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean test accuracy of every column at every level, with Student's interval over seeds."""
    rows = []
    for (sparsity, epsilon), own in _levels(pipelines).items():
        for column in columns:
            values = list(_accuracies(column, own).values())
            mean = mean_interval(values, CONFIDENCE)
            ends = _ends(mean.value, mean.half_width)
            rows.append({"sparsity": sparsity, "epsilon": epsilon, "column": column, **ends, "seeds": len(values)})
    return rows


def _gains(columns: Sequence[str], pipelines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What every column after `default` has more than it, of the same seeds."""
    rows = []
    for (sparsity, epsilon), own in _levels(pipelines).items():
        reference = _accuracies("default", own)
        for column in columns[2:]:
            values = _accuracies(column, own)
            gains = [values[seed] - reference[seed] for seed in values]
            mean = mean_interval(gains, CONFIDENCE)
            level = {"sparsity": sparsity, "epsilon": epsilon, "column": column, "against": "default"}
            rows.append(level | _ends(mean.value, mean.half_width) | {"seeds": len(gains)})
    return rows


def _ends(value: float, half: float | None) -> dict[str, float | None]:
    low, high = (None, None) if half is None else (value - half, value + half)
    return {"mean": value, "low": low, "high": high}


def _print(work: Work, result: Mapping[str, Any]) -> None:
    console, levels = make_console(), _levels(result["pipelines"])
    seeds = " or ".join(map(str, sorted({len(own) for own in levels.values()})))
    caption = "test accuracy in %, mean over seeds ± half a 95 % interval; in brackets what is gained over sparse"
    table = Table(box=box.SIMPLE_HEAD, caption=caption, pad_edge=False, caption_justify="left")
    columns = list(dict.fromkeys(row["column"] for row in result["table"]))
    for name in ("sparsity", *(NAMES[column] for column in columns)):
        table.add_column(name, justify="left" if name == "sparsity" else "right")
    gains = {(row["sparsity"], row["epsilon"], row["column"]): row for row in result["gains"]}
    for level in levels:
        cells = []
        for row in result["table"]:
            if (row["sparsity"], row["epsilon"]) == level:
                gain = gains.get((*level, row["column"]))
                cells.append(_percent(row) + (f"\n({_percent(gain, signed=True)})" if gain else ""))
        sparsity, epsilon = level
        table.add_row(f"{sparsity:g}" if sparsity is not None else f"epsilon {epsilon:g}" if epsilon else "-", *cells)
    console.print(table)
    for one in result["pipelines"]:
        console.print(f"{one['pipeline']}: {', '.join(one['operators'])}", soft_wrap=True)
    console.print(f"{seeds} seed{'' if seeds == '1' else 's'}; results: {work.plan.workdir / RESULT}", soft_wrap=True)
    page = f"python launch/report.py {shlex.quote(str(work.plan.workdir))}"
    console.print(f"as a page: {page}", soft_wrap=True)


def _percent(row: Mapping[str, Any], *, signed: bool = False) -> str:
    value = f"{100 * row['mean']:{'+' if signed else ''}.2f}"
    return value if row["low"] is None else f"{value} ± {50 * (row['high'] - row['low']):.2f}"
