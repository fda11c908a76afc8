"""Train the runs of one group together: the host's loop around the compiled programs."""

import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from sparse_jax.recipes import NATURES
from sparse_jax.study import rows
from sparse_jax.study.cost import Cost, forget_peak
from sparse_jax.study.extension import load
from sparse_jax.study.grid import Run
from sparse_jax.study.interrupt import Interrupt
from sparse_jax.study.mask_file import as_mask, as_pairs, pairs_of
from sparse_jax.study.monitor import Monitor
from sparse_jax.study.resolve import unchanged_masks
from sparse_jax.study.store import Store
from sparse_jax.topology.masks import Masks, name_of, put, select
from sparse_jax.training.checkpoint import Checkpoints, digest
from sparse_jax.training.cohort import abstract_state, place, without_padding
from sparse_jax.training.compaction import capacities, compacted, fitting
from sparse_jax.training.evaluation import measure
from sparse_jax.training.feed import Feed
from sparse_jax.training.parts import links_of, rates_of
from sparse_jax.training.state import Evaluation, HyperParams, Report, RunState, TrainFns
from sparse_jax.training.timeline import evaluation_due, next_event, update_due

KEPT_CHECKPOINTS = 2
SECONDS_A_CHUNK = 0.5  # between two looks at signals, checkpoints and the progress bar


class Group(NamedTuple):
    """The runs of a cohort that train at once, and what they train on."""

    id: str
    runs: tuple[Run, ...]
    fns: TrainFns
    hyper: HyperParams  # with a leading axis of runs, padded
    mesh: jax.sharding.Mesh
    feed: Feed
    finished: frozenset[str]  # the runs that have results already, of an earlier session
    majority: float  # share of the largest class in the test part
    lanes: int  # runs that share an instruction
    shorter: tuple[str, ...]  # the finished runs of fewer epochs that these continue; else empty
    session: int  # of config.json, in which this is trained


def hyper_params(run: Run) -> HyperParams:
    """The dynamic settings of a run as arrays. Raises UserError if the file of its first masks has changed."""
    config = run.config
    return HyperParams(
        seed=np.uint32(config.seed),
        start={name: np.int32(count) for name, count in run.start.items()},
        counts={name: np.int32(count) for name, count in run.final.items()},
        rates=rates_of(config),
        masks=_first_masks(run) if run.masks else {},
        learning_rate=np.float32(config.learning_rate),
        weight_decay=np.float32(config.weight_decay),
    )


def _first_masks(run: Run) -> dict[str, np.ndarray]:
    """The masks of the file of a run as it executes them: bool arrays, or int32[2, connections]."""
    masks, slots = unchanged_masks(run.config, run.problem, run.masks), run.problem.slots
    return {name: np.stack(as_pairs(mask)[:2]) if name in slots else as_mask(mask) for name, mask in masks.items()}


class _Pace:
    """How many steps to hand to the device at once; any division of the steps gives the same bits."""

    def __init__(self) -> None:
        self.steps = 1

    def adapt(self, done: int, seconds: float) -> None:
        """Aim at SECONDS_A_CHUNK from the time of the last chunk, growing at most tenfold."""
        wanted = int(done * SECONDS_A_CHUNK / max(seconds, 1e-6))
        self.steps = max(1, min(wanted, 10 * self.steps))


class Trainer:
    """The training of one group from its last checkpoint to its results."""

    def __init__(
        self, group: Group, store: Store, checkpoint_seconds: float, interrupt: Interrupt, monitor: Monitor
    ) -> None:
        self.group, self.store, self.interrupt, self.monitor = group, store, interrupt, monitor
        self.config, self.problem = group.runs[0].config, group.runs[0].problem
        self.checkpoint_seconds = checkpoint_seconds
        self.pending = [run for run in group.runs if run.id not in group.finished]
        self.pace, self.cost = _Pace(), Cost(group.runs, None)
        self.continues = False  # whether it begins at the end of shorter runs

    def train(self) -> bool:
        """Train, and write the result of every run; False if asked to stop before, with the state saved."""
        forget_peak()
        with Checkpoints(self.store.checkpoints(self.group.id), KEPT_CHECKPOINTS) as checkpoints:
            step, state, before = self._start(checkpoints)
            started = self.saved_at = time.monotonic()
            saved = step
            step, state = self._updated(step, state) if self.continues else (step, state)
            while step < self.problem.steps:
                step, state = self._chunk(step, state)
                if self.interrupt.asked or time.monotonic() - self.saved_at >= self.checkpoint_seconds:
                    seconds = before + time.monotonic() - started
                    self._save(checkpoints, step, state, seconds)
                    self.saved_at, saved = time.monotonic(), step
                if self.interrupt.asked:
                    return False
            seconds = before + time.monotonic() - started
            if saved < step:
                self._save(checkpoints, step, state, seconds)
            checkpoints.keep_newest()
        self._write_results(state, seconds / len(self.group.runs))
        self.monitor.end(self.group.id, len(self.pending), seconds, self.cost.summary)
        return True

    def _save(self, checkpoints: Checkpoints, step: int, state: RunState, seconds: float) -> None:
        runs = self.group.runs
        meta = {"seconds": seconds, "flops": self.cost.flops, "runs": [run.id for run in runs]}
        meta |= {"model": self.config.model, "kernels": self.problem.kernels, "slots": capacities(state.model_state)}
        checkpoints.save(step, without_padding(state, len(runs)), meta)

    def _start(self, checkpoints: Checkpoints) -> tuple[int, RunState, float]:
        """The newest whole checkpoint, or the beginning; the metrics are cut back to its step."""
        group = self.group
        begun = abstract_state(group.fns, group.hyper, group.feed.like(), len(group.runs))
        restored = checkpoints.restore(lambda meta: compacted(begun, meta["slots"])) or self._continued(begun)
        if restored is None:
            step, state, seconds = 0, group.fns.init(group.hyper, group.feed.begin()), 0.0
        else:
            step, saved, meta = restored
            state, seconds = place(saved, group.hyper.seed.shape[0], group.mesh), meta["seconds"]
            self.cost = Cost(group.runs, meta["flops"])
        self.cost.look(state.topology)
        for run in self.pending:
            self.store.truncate_metrics(run.id, step)
        self.monitor.begin(group.id, step * len(self.pending), group.feed.description)
        return step, state, seconds

    def _continued(self, begun: RunState) -> tuple[int, RunState, dict[str, Any]] | None:
        """The end of the shorter runs that this group continues, as a checkpoint; their metrics become its own."""
        ended = load(self.store, self.group.shorter, begun) if self.group.shorter else None
        if ended is None:
            return None
        for run, shorter in zip(self.group.runs, self.group.shorter, strict=True):
            if run in self.pending:
                self.store.copy_metrics(shorter, run.id)
        results = self.store.read_results()
        self.continues = True
        return ended.step, ended.state, {
            "flops": ended.flops, "seconds": sum(results[run_id]["seconds"] for run_id in self.group.shorter),
        }  # fmt: skip

    def _chunk(self, step: int, state: RunState) -> tuple[int, RunState]:
        """Some optimiser steps, at most to the next event, and that event if it is reached."""
        fns, data, begun = self.group.fns, self.group.feed.at(step), time.monotonic()
        event = next_event(self.config, self.problem, step)
        count = min(event - step, self.pace.steps, self.group.feed.steps(step))
        state = jax.block_until_ready(fns.steps(state, self.group.hyper, data, np.int32(count)))
        spent = time.monotonic() - begun
        self.pace.adapt(count, spent)
        self.cost.add_steps(count, spent)
        after = step + count
        if after == event:
            after, state = self._event(after, state)
        self.monitor.advance((after - step) * len(self.pending))
        return after, state

    def _event(self, step: int, state: RunState) -> tuple[int, RunState]:
        """The evaluation, then the update, that are due at `step`; an update may take a step's place."""
        state = self._evaluate(step, state) if evaluation_due(self.problem, step) else state
        return self._updated(step, state)

    def _updated(self, step: int, state: RunState) -> tuple[int, RunState]:
        """The update that is due at `step`, if one is, and the evaluation of the step that it took the place of."""
        if not update_due(self.config, self.problem, step):
            return step, state
        state = self.group.fns.update(state, self.group.hyper, self.group.feed.at(step))
        self.cost.add_update()
        self.cost.look(state.topology)
        state = self._compacted(state)
        after = step + self.group.fns.update_steps
        if after > step and evaluation_due(self.problem, after):
            state = self._evaluate(after, state)
        return after, state

    def _compacted(self, state: RunState) -> RunState:
        """The state with as many slots as its runs need, where their method takes connections away for good."""
        slots, before = self.problem.slots, capacities(state.model_state)
        if not slots or NATURES[self.config.method].count not in ("schedule", "accuracy") or self._may_grow:
            return state
        most = {name: max(used[name] for used in self.cost.connections) for name in slots}
        now = fitting(most, slots, before)
        if now == before:
            return state
        self.cost.compiles_again()
        return compacted(state, now)

    @property
    def _may_grow(self) -> bool:
        return any(run.final[name] > run.start[name] for run in self.group.runs for name in self.problem.slots)

    def _evaluate(self, step: int, state: RunState) -> RunState:
        state, report = self.group.fns.validate(state, self.group.feed.at(step))
        report = jax.device_get(report)
        for lane, run in enumerate(self.group.runs):
            if run in self.pending:
                self.store.append_metrics(run.id, self._metrics(step, run, _lane(report, lane)))
        return state

    def _metrics(self, step: int, run: Run, report: Report) -> dict[str, Any]:
        return {
            "step": step,
            "epoch": step // self.problem.steps_per_epoch,
            "train_loss": rows.number(report.train.loss),
            "train_accuracy": rows.share(report.train.correct, report.train_examples),
            "val_loss": rows.number(report.validation.loss),
            "val_accuracy": rows.share(report.validation.correct, self.problem.validation),
            "sparsity": rows.sparsity(run, int(report.connections)),
            "connections": rows.all_connections(run, int(report.connections)),
            "explored": rows.explored(run, int(report.explored)),
            **rows.connectivity(run, report.connectivity),
            "moved": report.moved,
            "diverged": report.diverged,
        }

    def _write_results(self, state: RunState, seconds: float) -> None:
        """Evaluate the trained networks on every part of the data, for the first time on test."""
        evaluations = {part: self._score(state.evaluated, i) for i, part in enumerate(("train", "val", "test"))}
        if state.best is not None:
            evaluations["test_at_best"] = self._score((state.best.params, state.best.model_state), 2)
        host = jax.device_get(state._replace(key=None, opt_state=None))
        for lane, run in enumerate(self.group.runs):
            if run in self.pending:
                result = self._result(run, lane, _lane(host, lane), _lane(evaluations, lane))
                if self.problem.masked:
                    self.store.write_masks(run.id, self._masks(_lane(host, lane)))
                self.store.write_result(run.id, result | {"seconds": round(seconds, 3)})

    def _masks(self, state: RunState) -> dict[str, Any]:
        """The topology of a run: masks, and the pairs of what was executed sparsely."""
        return state.topology.masks | {
            name: pairs_of(links.outputs, links.input_starts, self.problem.kernels[name])
            for name, links in links_of(state.model_state).items()
        }

    def _score(self, variables: tuple[Any, Any], part: int) -> Evaluation:
        """Loss and hits on a part of the data of every run, given its (params, model_state); on the host."""
        evaluate, found, sizes = self.group.fns.evaluate, [], []
        for data, start, stop in self.group.feed.rows(part):
            found.append(jax.device_get(evaluate(*variables, data, start, stop)))
            sizes.append(stop - start)
        losses = np.average([one.loss for one in found], 0, sizes) if len(found) > 1 else found[0].loss
        return Evaluation(losses.astype(np.float32), sum(one.correct for one in found))

    def _result(self, run: Run, lane: int, state: RunState, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
        problem, topology = self.problem, state.topology
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
            "parameters": connections + _unmasked_parameters(state.params, topology.masks),
            "explored": rows.explored(run, sum(int(mask.sum()) for mask in topology.explored.values())),
            **rows.connectivity(run, measure(self.config, problem, topology.masks, links, np.ones)),
            **{f"{part}_accuracy": value for part, value in accuracy.items()},
            **{f"{part}_loss": value for part, value in losses.items()},
            "status": rows.status(finite and not state.diverged, accuracy["test"], self.group.majority, problem.test),
            **self.cost.of(lane, by_layer),
            "lanes": self.group.lanes,
            "session": self.group.session,
            "majority": self.group.majority,
            "digest": digest(_identity(state)),
        }
        if state.best is None:
            return result
        at_best = evaluations["test_at_best"].correct
        return result | {
            "best_val_accuracy": rows.share(state.best.correct, problem.validation),
            "test_accuracy_at_best_val": rows.share(at_best, problem.test),
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


def _lane(tree: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], tree)
