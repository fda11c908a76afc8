"""What is written of a group of runs: a line of metrics at an evaluation, a result at the end."""

import math
from typing import Any

import jax
import numpy as np

from sparse_jax.analysis.stability import dead_classes, loss_spikes, silent_neurons
from sparse_jax.study import rows
from sparse_jax.study.cost import Cost
from sparse_jax.study.grid import Run
from sparse_jax.study.group import Group, lane_of
from sparse_jax.study.mask_file import pairs_of
from sparse_jax.study.store import Store
from sparse_jax.study.trackers import Tracker
from sparse_jax.topology.masks import Masks, name_of, put, select
from sparse_jax.training.checkpoint import digest
from sparse_jax.training.evaluation import measure
from sparse_jax.training.parts import links_of
from sparse_jax.training.state import Evaluation, Report, RunState


def metrics(step: int, run: Run, report: Report) -> dict[str, Any]:
    """What is known of a run at a step."""
    problem = run.problem
    return {
        "step": step,
        "epoch": step // problem.steps_per_epoch,
        "train_loss": rows.number(report.train.loss),
        "train_accuracy": rows.share(report.train.correct, report.train_examples),
        "val_loss": rows.number(report.validation.loss),
        "val_accuracy": rows.share(report.validation.correct, problem.validation),
        "sparsity": rows.sparsity(run, int(report.connections)),
        "connections": rows.all_connections(run, int(report.connections)),
        "explored": rows.explored(run, int(report.explored)),
        **rows.connectivity(run, report.connectivity),
        "moved": report.moved,
        "diverged": report.diverged,
    }


def first_layer(run: Run) -> str | None:
    """The kernel that sees the inputs one by one, if it has a mask and the network has such a one."""
    name, shape = next(iter(run.problem.kernels.items()))
    return name if name in run.problem.masked and shape[:-1] == (math.prod(run.problem.input_shape),) else None


def seen_now(epoch: int) -> bool:
    """Whether the connections of every input are kept at an epoch: 1 to 8, then four times until it doubles."""
    return epoch % 2 ** max(epoch.bit_length() - 3, 0) == 0


def write_results(
    group: Group, store: Store, cost: Cost, pending: list[Run], seconds: float, tracker: Tracker
) -> None:
    """Evaluate the trained networks on every part of the data, for the first time on test.

    Args:
      group: whose training is over.
      store: of the study.
      cost: of the group.
      pending: the runs that have no result yet.
      seconds: that a run took.
      tracker: hears of every result.
    """
    fleet = group.fleet
    evaluations = {part: fleet.evaluate(i) for i, part in enumerate(("train", "val", "test"))}
    host = fleet.networks()
    if host.best is not None:
        evaluations["test_at_best"] = fleet.evaluate(2, best=True)
    results: list[tuple[Run, dict[str, Any]]] = []
    for lane, run in enumerate(group.runs):
        if run in pending:
            result = _result(group, cost, run, lane, lane_of(host, lane), lane_of(evaluations, lane))
            result |= _stability(group, run, lane_of(evaluations, lane), store.read_metrics(run.id))
            if run.problem.masked:
                store.write_masks(run.id, _masks(run, lane_of(host, lane)))
            results.append((run, result | {"seconds": round(seconds, 3)}))
            store.write_result(run.id, results[-1][1])
    for run, result in results:
        tracker.end(run, result)


def _masks(run: Run, state: RunState) -> dict[str, Any]:
    """The topology of a run: masks, and the pairs of what was executed sparsely."""
    return state.topology.masks | {
        name: pairs_of(links.outputs, links.input_starts, run.problem.kernels[name])
        for name, links in links_of(state.model_state).items()
    }


def _result(
    group: Group, cost: Cost, run: Run, lane: int, state: RunState, evaluations: dict[str, Evaluation]
) -> dict[str, Any]:
    problem, topology, majority = run.problem, state.topology, float(group.examples.max() / run.problem.test)
    by_layer = {name: int(mask.sum()) for name, mask in topology.masks.items()}
    connections, links = sum(by_layer.values()), links_of(state.model_state)
    examples = {"train": problem.train, "val": problem.validation, "test": problem.test}
    accuracy = {part: rows.share(evaluations[part].correct, count) for part, count in examples.items()}
    losses = {part: rows.number(evaluations[part].loss) for part in examples}
    finite = all(math.isfinite(losses[part]) for part in examples if examples[part])
    result = rows.describe_settings(run) | {
        "sparsity": rows.sparsity(run, connections),
        "kernel_sparsity": rows.kernel_sparsity(run, connections),
        "connections": rows.all_connections(run, connections),
        "connections_by_layer": by_layer,
        "kernels": problem.kernels,
        "steps": problem.steps,
        "input_shape": problem.input_shape,
        "test_examples": problem.test,
        "parameters": connections + _unmasked_parameters(state.params, topology.masks),
        "explored": rows.explored(run, sum(int(mask.sum()) for mask in topology.explored.values())),
        **rows.connectivity(run, measure(run.config, problem, topology.masks, links, np.ones)),
        **{f"{part}_accuracy": value for part, value in accuracy.items()},
        **{f"{part}_loss": value for part, value in losses.items()},
        "status": rows.status(finite and not state.diverged, accuracy["test"], majority, problem.test),
        **cost.of(lane, by_layer),
        "lanes": group.lanes,
        "group": group.id,
        "session": group.session,
        "majority": majority,
        "digest": digest(_identity(state)),
    }
    if state.best is None or state.best.correct < 0:  # none was evaluated
        return result
    at_best = evaluations["test_at_best"].correct
    return result | {
        "best_val_accuracy": rows.share(state.best.correct, problem.validation),
        "test_accuracy_at_best_val": rows.share(at_best, problem.test),
    }


def _stability(
    group: Group, run: Run, evaluations: dict[str, Evaluation], logged: list[dict[str, Any]]
) -> dict[str, Any]:
    """What detectors of unstable training say; None where they cannot tell.

    Classes are those of the test part. Neurons are asked on the training part: a ReLU that never fires there has no
    gradient that could wake it, and of few examples a rare response is missed. Losses are those of the metrics, one an
    epoch; where lines are lost, nobody knows.
    """
    test, ranges = evaluations["test"], evaluations["train"].ranges
    by_layer = {f"activation_{i}": silent_neurons(*both) for i, both in ranges.items()}
    silent = None if None in by_layer.values() else sum(by_layer.values())
    neurons, losses = sum(both.low.size for both in ranges.values()), [row["train_loss"] for row in logged]
    return {
        "dead_classes": dead_classes(group.examples, test.predicted) if math.isfinite(test.loss) else None,
        "silent_neurons": silent,
        "silent_share": None if silent is None else silent / neurons,
        "silent_by_layer": by_layer,
        "loss_spikes": loss_spikes(losses, run.problem.classes) if len(losses) == run.config.epochs else None,
    }


def _identity(state: RunState) -> tuple:
    """What two runs that are equal have in common, however many slots they have."""
    params, masks, links = state.evaluated.params, state.topology.masks, links_of(state.model_state)
    if not links:
        return params, masks
    used = {name: int(of_layer.input_starts[-1]) for name, of_layer in links.items()}
    values = {name: value[: used[name]] for name, value in select(params, links).items()}
    where = {name: (of_layer.outputs[: used[name]], of_layer.input_starts) for name, of_layer in links.items()}
    return put(params, values), {name: mask for name, mask in masks.items() if name not in links}, where


def _unmasked_parameters(params: Any, masks: Masks) -> int:
    return sum(leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(params) if name_of(path) not in masks)
