"""Train the runs of one group together: the loop that decides and writes, around a fleet that computes."""

import time
from typing import Any

from sparse_jax.recipes import NATURES
from sparse_jax.study.cost import Cost, forget_peak
from sparse_jax.study.extension import load
from sparse_jax.study.group import Group, lane_of
from sparse_jax.study.monitor import Monitor
from sparse_jax.study.results import first_layer, metrics, seen_now, write_results
from sparse_jax.study.store import Store
from sparse_jax.study.trackers import Tracker
from sparse_jax.training.checkpoint import Checkpoints
from sparse_jax.training.compaction import capacities, compacted, fitting
from sparse_jax.training.hosts import Wish
from sparse_jax.training.state import RunState
from sparse_jax.training.timeline import evaluation_due, next_event, update_due

KEPT_CHECKPOINTS = 2
SECONDS_A_CHUNK = 3.0  # between two looks at signals, checkpoints and the progress bar; every chunk allocates anew


class Pace:
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
        self, group: Group, store: Store, checkpoint_seconds: float, interrupt: Wish, monitor: Monitor,
        tracker: Tracker,
    ) -> None:
        self.group, self.store, self.interrupt, self.monitor, self.tracker = group, store, interrupt, monitor, tracker
        self.config, self.problem, self.fleet = group.runs[0].config, group.runs[0].problem, group.fleet
        self.checkpoint_seconds = checkpoint_seconds
        self.pending = [run for run in group.runs if run.id not in group.finished]
        self.pace, self.cost = Pace(), Cost(group.runs, None)
        self.continues = False  # whether it begins at the end of shorter runs

    def train(self) -> bool:
        """Train, and write the result of every run; False if asked to stop before, with the state saved."""
        forget_peak()
        with Checkpoints(self.store.checkpoints(self.group.id), KEPT_CHECKPOINTS) as checkpoints:
            step, before, saved = self._start(checkpoints)
            started = self.saved_at = time.monotonic()
            step = self._updated(step) if self.continues else step
            while step < self.problem.steps:
                step = self._chunk(step)
                if self.interrupt.asked or time.monotonic() - self.saved_at >= self.checkpoint_seconds:
                    seconds = before + time.monotonic() - started
                    self._save(checkpoints, step, seconds)
                    self.saved_at, saved = time.monotonic(), step
                if self.interrupt.asked:
                    return False
            seconds = before + time.monotonic() - started
            if saved < step:
                self._save(checkpoints, step, seconds)
            checkpoints.keep_newest()
        write_results(self.group, self.store, self.cost, self.pending, seconds / len(self.group.runs), self.tracker)
        self.monitor.end(self.group.id, len(self.pending), seconds, self.cost.summary)
        return True

    def _save(self, checkpoints: Checkpoints, step: int, seconds: float) -> None:
        meta = {"seconds": seconds, "flops": self.cost.flops, "runs": [run.id for run in self.group.runs]}
        meta |= {"model": self.config.model, "kernels": self.problem.kernels, "slots": self.fleet.slots}
        checkpoints.save(step, self.fleet.saved(), meta)

    def _start(self, checkpoints: Checkpoints) -> tuple[int, float, int]:
        """The step and the seconds of the newest whole checkpoint, or of the beginning; the step saved last.

        The metrics are cut back to its step.
        """
        group = self.group
        begun = self.fleet.shapes()

        def like(meta):
            if meta["runs"] != [run.id for run in group.runs]:
                raise ValueError("it is of other runs")
            return compacted(begun, meta["slots"])

        saved_here = checkpoints.restore(like)
        restored = saved_here or self._continued(begun)
        if restored is None:
            step, seconds = 0, 0.0
            self.fleet.begin()
        else:
            step, saved, meta = restored
            seconds = meta["seconds"]
            self.fleet.restore(capacities(saved.model_state), saved)
            self.cost = Cost(group.runs, meta["flops"])
        self.cost.look(self.fleet)
        for run in self.pending:
            self.store.truncate_metrics(run.id, step)
            self.tracker.begin(run, self.store.read_metrics(run.id))
        self.monitor.begin(group.id, step * len(self.pending), self.fleet.description)
        return step, seconds, step if saved_here else -1

    def _continued(self, begun: RunState) -> tuple[int, RunState, dict[str, Any]] | None:
        """The end of the shorter runs that this group continues, as a checkpoint; their metrics become its own."""
        if not self.group.shorter:
            return None
        everything = self.store.read_results()
        results = {run_id: everything[run_id] for run_id in self.group.shorter}
        epochs = next(iter(results.values()))["epochs"]
        ended = load(self.store, results, begun, epochs * self.problem.steps_per_epoch)
        if ended is None:
            self.monitor.say(f"{self.group.id} begins anew: the ends of its runs of {epochs} epochs are gone")
            return None
        for run, shorter in zip(self.group.runs, self.group.shorter, strict=True):
            if run in self.pending:
                self.store.copy_metrics(shorter, run.id)
        self.continues = True
        seconds = sum(result["seconds"] for result in results.values())
        return ended.step, ended.state, {"flops": ended.flops, "seconds": seconds}

    def _chunk(self, step: int) -> int:
        """Some optimiser steps, at most to the next event, and that event if it is reached; the step after them."""
        event = next_event(self.config, self.problem, step)
        count = min(event - step, self.pace.steps, self.fleet.steps_at_once(step))
        spent = self.fleet.steps(step, count)
        self.pace.adapt(count, spent)
        self.cost.add_steps(count, spent)
        after = step + count
        if after == event:
            after = self._event(after)
        self.monitor.advance((after - step) * len(self.pending))
        return after

    def _event(self, step: int) -> int:
        """The evaluation, then the update, that are due at `step`; an update may take a step's place."""
        if evaluation_due(self.problem, step):
            self._evaluate(step)
        return self._updated(step)

    def _updated(self, step: int) -> int:
        """The update that is due at `step`, if one is, and the evaluation of the step that it took the place of."""
        if not update_due(self.config, self.problem, step):
            return step
        self.fleet.update(step)
        self.cost.add_update()
        self.cost.look(self.fleet)
        self._compact()
        after = step + self.fleet.update_steps
        if after > step and evaluation_due(self.problem, after):
            self._evaluate(after)
        return after

    def _compact(self) -> None:
        """Leave as many slots as the runs need, where their method takes connections away for good."""
        slots, before = self.problem.slots, self.fleet.slots
        if not slots or NATURES[self.config.method].count not in ("schedule", "accuracy") or self._may_grow:
            return
        most = {name: max(used[name] for used in self.cost.connections) for name in slots}
        now = fitting(most, slots, before)
        if now != before:
            self.cost.compiles_again()
            self.fleet.compact(now)

    @property
    def _may_grow(self) -> bool:
        return any(run.final[name] > run.start[name] for run in self.group.runs for name in self.problem.slots)

    def _evaluate(self, step: int) -> None:
        inputs = first_layer(self.group.runs[0]) if seen_now(step // self.problem.steps_per_epoch) else None
        report, seen = self.fleet.validate(step, inputs)
        for lane, run in enumerate(self.group.runs):
            if run in self.pending:
                row = metrics(step, run, lane_of(report, lane)) | lane_of(seen, lane)
                self.store.append_metrics(run.id, row)
                self.tracker.log(run, row)
