"""Networks that are trained side by side in one compiled program, and scored on the validation part.

They differ in what is data to the program: seeds, masks and first weights, activation functions, hyper-parameters.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from sparse_jax.config import RunConfig
from sparse_jax.data.batches import Data
from sparse_jax.study.interrupt import Interrupt
from sparse_jax.study.train_group import Pace
from sparse_jax.training.checkpoint import Checkpoints, digest
from sparse_jax.training.cohort import abstract_state, make_cohort, on_host, over_runs, place, replicate, stack
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.parts import Choices
from sparse_jax.training.problem import Problem
from sparse_jax.training.state import Evaluation, HyperParams, RunState
from sparse_jax.training.timeline import evaluation_due, next_event, update_due
from sparse_jax.training.train import make_train

Item = TypeVar("Item")
# after an epoch: (epoch, places of the networks still trained, their accuracies) -> whether to end each
Rung = Callable[[int, list[int], list[float]], list[bool]]


class StoppedError(Exception):
    """Somebody asked the search to stop; its state is saved."""


class Watch(NamedTuple):
    """What a training looks at while it goes on."""

    interrupt: Interrupt
    advance: Callable[[float], None]  # is told of epochs, those of all networks together
    checkpoints: Path  # a folder for the state of a training that takes long; gone after its end
    checkpoint_seconds: float


class Trained(NamedTuple):
    """How a network did."""

    accuracy: float  # on the validation part; 0 if it diverged
    loss: float  # there
    diverged: bool
    epochs: int  # that it was trained
    seconds: float  # its share of the time of all that were trained beside it
    network: dict[str, Any]  # params, model_state and masks, on the host; empty unless they were asked for


class _Course(NamedTuple):
    """Where a training stands; a lane is a place in the program."""

    step: int
    state: RunState
    lanes: dict[str, np.ndarray]  # by lane: whether it is still trained, what it took, and how it did


def _nothing_yet(width: int, lanes: np.ndarray) -> dict[str, np.ndarray]:
    active = np.zeros(width, bool)
    active[lanes] = True
    kinds = {"epochs": np.int32, "seconds": np.float32, "correct": np.int32, "loss": np.float32, "diverged": bool}
    return {"active": active, **{name: np.zeros(width, kind) for name, kind in kinds.items()}}


def _of_lanes(tree: Any, lanes: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: leaf[lanes], tree)


class SideBySide:
    """The trainings of one configuration, compiled for a number of lanes; one that has nothing to do takes no time."""

    def __init__(
        self, config: RunConfig, problem: Problem, choices: Choices, hardware: Hardware, lanes: int, data: Data
    ) -> None:
        """`data`, on the host, have the training part first, then the validation part."""
        self.config, self.problem = config, problem
        self.mesh, self.width = hardware.place(lanes)
        self.data = replicate(data, self.mesh)
        fns = make_train(config, problem, choices)
        self.cohort = make_cohort(fns, hardware.layout, self.mesh)

        def steps(state: RunState, hyper: HyperParams, count: jax.Array, data: Data) -> RunState:
            return fns.steps(state, hyper, data, count)

        self.steps = jax.jit(over_runs(steps, hardware.layout, self.mesh, 3), donate_argnums=0)
        self.pace = Pace()

    def train(
        self, runs: Sequence[HyperParams], watch: Watch, *, keep: bool = False, rung: Rung | None = None
    ) -> list[Trained]:
        """Train networks.

        Args:
          runs: what they begin with, on the host; no more than there are lanes.
          watch: see there.
          keep: whether their networks are wanted.
          rung: if there is one, it is asked after every epoch but the last.

        Raises:
          StoppedError: it was interrupted; the same call goes on from there.
        """
        at = self._lanes(len(runs))
        hyper = stack([runs[place] for place in self._sources(at)], self.width, self.mesh)
        saver = _Saver(watch, {"runs": digest(list(runs)), "steps": self.problem.steps})
        course = self._begun(hyper, at, saver)
        hyper = hyper._replace(network={})  # the state has it
        while course.step < self.problem.steps and course.lanes["active"].any():
            course = self._advanced(course, hyper, watch, at, rung)
            saver.look(course, at)
        saver.forget()
        return self._trained(course, at, keep)

    def portions(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Items in their order, as many at a time as there are lanes."""
        return (items[first : first + self.width] for first in range(0, len(items), self.width))

    def evaluate(self, networks: Sequence[dict[str, Any]], data: Data) -> list[Evaluation]:
        """What networks do on all rows of other data, on the host."""
        found, data = [], replicate(data, self.mesh)
        rows = np.int32(0), np.int32(data.y.shape[0])
        for some in self.portions(networks):
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *some)
            params, model_state = (place(stacked[name], self.width, self.mesh) for name in ("params", "model_state"))
            evaluation = jax.device_get(self.cohort.evaluate(params, model_state, data, *rows))
            found += [jax.tree.map(lambda leaf, i=i: leaf[i], evaluation) for i in range(len(some))]
        return found

    def _lanes(self, count: int) -> np.ndarray:
        """The lanes of so many networks: shared out evenly among the devices, each of which has some in a row."""
        devices = self.mesh.size
        return np.array([i % devices * (self.width // devices) + i // devices for i in range(count)])

    def _sources(self, at: np.ndarray) -> np.ndarray:
        """int[width], which network every lane gets: those that are not in `at` repeat the first."""
        sources = np.zeros(self.width, int)
        sources[at] = np.arange(len(at))
        return sources

    def _begun(self, hyper: HyperParams, at: np.ndarray, saver: "_Saver") -> _Course:
        state, lanes = abstract_state(self.cohort, hyper, self.data, len(at)), _nothing_yet(self.width, at)
        saved = saver.restored({"state": state, "lanes": _of_lanes(lanes, at)})
        if saved is None:
            return _Course(0, self.cohort.init(hyper, self.data), lanes)
        step, tree = saved
        for name, values in tree["lanes"].items():
            lanes[name][at] = values
        return _Course(step, place(_of_lanes(tree["state"], self._sources(at)), self.width, self.mesh), lanes)

    def _advanced(
        self, course: _Course, hyper: HyperParams, watch: Watch, at: np.ndarray, rung: Rung | None
    ) -> _Course:
        """Some optimiser steps, at most to the next event, and that event if it is reached."""
        step, state, lanes = course
        event, begun = next_event(self.config, self.problem, step), time.monotonic()
        count, active = min(event - step, self.pace.steps), lanes["active"].copy()
        counts = np.where(active, count, 0).astype(np.int32)
        state = jax.block_until_ready(self.steps(state, hyper, counts, self.data))
        after = step + count
        self.pace.adapt(count, time.monotonic() - begun)
        if after == event:
            state = self._looked_at(after, state, lanes, at, rung)
            if update_due(self.config, self.problem, after):
                state = self.cohort.update(state, hyper, self.data)
                after += self.cohort.update_steps
                if self.cohort.update_steps:
                    state = self._looked_at(after, state, lanes, at, rung)
        lanes["seconds"][active] += (time.monotonic() - begun) / active.sum()
        watch.advance((after - step) / self.problem.steps_per_epoch * active.sum())
        return _Course(after, state, lanes)

    def _looked_at(
        self, step: int, state: RunState, lanes: dict[str, np.ndarray], at: np.ndarray, rung: Rung | None
    ) -> RunState:
        """The state after the evaluation that is due at `step`, if one is."""
        if not evaluation_due(self.problem, step):
            return state
        last = step == self.problem.steps
        lanes["epochs"][lanes["active"]] += 1
        if rung is not None or last:
            state = self._scored(state, lanes)
        if rung is not None and not last:
            self._asked(lanes, at, rung)
        return state

    def _scored(self, state: RunState, lanes: dict[str, np.ndarray]) -> RunState:
        """The state after an evaluation, which goes into `lanes`."""
        state, report = self.cohort.validate(state, self.data)
        report, active = jax.device_get(report), lanes["active"]
        diverged, tally = report.diverged | ~np.isfinite(report.validation.loss), report.validation
        correct = np.where(diverged, 0, tally.correct)
        for name, values in (("correct", correct), ("loss", tally.loss), ("diverged", diverged)):
            lanes[name][active] = values[active]
        return state

    def _accuracy(self, lanes: dict[str, np.ndarray], lane: int) -> float:
        return int(lanes["correct"][lane]) / self.problem.validation

    def _asked(self, lanes: dict[str, np.ndarray], at: np.ndarray, rung: Rung) -> None:
        """End the training of those of which a rung says so."""
        places = [i for i, lane in enumerate(at) if lanes["active"][lane]]
        ends = rung(int(lanes["epochs"].max()), places, [self._accuracy(lanes, at[i]) for i in places])
        lanes["active"][[at[i] for i, end in zip(places, ends, strict=True) if end]] = False

    def _trained(self, course: _Course, at: np.ndarray, keep: bool) -> list[Trained]:
        networks: list[dict[str, Any]] = [{}] * len(at)
        if keep:
            params, model_state = course.state.evaluated
            whole = {"params": params, "model_state": model_state, "masks": course.state.topology.masks}
            whole = jax.device_get(whole)
            networks = [jax.tree.map(lambda leaf, lane=lane: leaf[lane], whole) for lane in at]
        lanes, names = course.lanes, ("loss", "diverged", "epochs", "seconds")
        return [
            Trained(self._accuracy(lanes, lane), *(lanes[name][lane].item() for name in names), network)
            for lane, network in zip(at, networks, strict=True)
        ]


class _Saver:
    """The checkpoints of a training: made if it takes long or is interrupted, gone after its end."""

    def __init__(self, watch: Watch, meta: dict[str, Any]) -> None:
        self.watch, self.meta, self.saved = watch, meta, time.monotonic()

    def restored(self, like: Any) -> tuple[int, Any] | None:
        """The step and the tree of the newest checkpoint, if it is of this training."""
        if not self.watch.checkpoints.is_dir():
            return None
        with Checkpoints(self.watch.checkpoints, keep=1) as checkpoints:
            saved = checkpoints.restore(like)
        if saved is None or saved[2] != self.meta:
            self.forget()
            return None
        return saved[:2]

    def look(self, course: _Course, at: np.ndarray) -> None:
        """Save where it is time to, in the order of the networks: other devices have other lanes.

        Raises StoppedError if somebody asked to stop.
        """
        stops = self.watch.interrupt.asked
        if stops or time.monotonic() - self.saved >= self.watch.checkpoint_seconds:
            with Checkpoints(self.watch.checkpoints, keep=1) as checkpoints:
                networks = {"state": on_host(course.state, at), "lanes": _of_lanes(course.lanes, at)}
                checkpoints.save(course.step, networks, self.meta)
            self.saved = time.monotonic()
        if stops:
            raise StoppedError

    def forget(self) -> None:
        shutil.rmtree(self.watch.checkpoints, ignore_errors=True)
