"""Train what a study lacks, cohort by cohort, beside whoever else does, and keep its results."""

import dataclasses
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from sparse_jax.config import StudyConfig
from sparse_jax.data.catalog import Arrays
from sparse_jax.errors import UserError
from sparse_jax.study.assemble import Assembler
from sparse_jax.study.extension import Shorter
from sparse_jax.study.grid import Cohort, Run, Study
from sparse_jax.study.group import Group
from sparse_jax.study.groups import Members, unfinished
from sparse_jax.study.loader import make_loader, same_data
from sparse_jax.study.memory import bytes_per_batch, bytes_per_run, out_of_memory
from sparse_jax.study.monitor import Monitor
from sparse_jax.study.provenance import open_session, tell_of_kernel
from sparse_jax.study.rows import COLUMNS, describe_settings
from sparse_jax.study.shares import in_turn, work_through
from sparse_jax.study.store import Store
from sparse_jax.study.trackers import Tracker, track
from sparse_jax.study.train_group import Trainer
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.hosts import Hosts


class Outcome(NamedTuple):
    """How a worker ended."""

    stopped: bool  # by SIGTERM or SIGINT, with the state of the running group saved
    held: dict[str, str]  # cohort -> who trains it


@dataclasses.dataclass(frozen=True)
class Worker:
    """Trains the cohorts of a study that it is given, one at a time; the lock of a cohort has to be held."""

    study: Study
    store: Store
    hardware: Hardware
    hosts: Hosts
    session: int  # of config.json
    assemble: Assembler
    shorter: Shorter
    checkpoint_seconds: float
    monitor: Monitor
    tracker: Tracker

    def left(self, cohort: Cohort) -> bool:
        """Whether some run of a cohort has neither a result nor a failure."""
        return len(self._ended(cohort.runs)) < len(cohort.runs)

    def train(self, cohort: Cohort) -> bool:
        """Train what is left of a cohort, as many runs at once as there is memory for; False if asked to stop."""
        hardware, run = self._sized(cohort), cohort.runs[0]
        while (outcome := self._train_with(hardware, cohort)) is None:
            hardware = hardware.halved(min(hardware.group_size(bytes_per_run(run)), len(cohort.runs)))
            self.monitor.say(f"{cohort.id}: out of memory; begins anew with {hardware.lane_width} runs at once")
            self.store.forget_groups(cohort.id, self._ended(cohort.runs))
            self.store.write_lanes(cohort.id, hardware.lane_width)
        return outcome

    def _sized(self, cohort: Cohort) -> Hardware:
        """The hardware with as many lanes as a cohort was begun with, or as there is memory for."""
        lanes, run = self.store.read_lanes(cohort.id), cohort.runs[0]
        if lanes is not None:
            return self.hardware._replace(lane_width=lanes)
        hardware = self.hardware.fitting(bytes_per_run(run) + bytes_per_batch(run) // self.hardware.batch_devices)
        if hardware.layout == "vmap":  # results depend on it
            self.store.write_lanes(cohort.id, hardware.lane_width)
        if hardware != self.hardware:
            self.monitor.say(f"{cohort.id}: memory for {hardware.lane_width} lanes")
        return hardware

    def _train_with(self, hardware: Hardware, cohort: Cohort) -> bool | None:
        """Train what is left of a cohort, and renew results.csv after every group.

        Returns:
          False if asked to stop; None if there is too little memory for as many runs at once.
        """
        most = hardware.group_size(bytes_per_run(cohort.runs[0]))
        for members in unfinished(cohort, self.store, self.shorter, self._ended(cohort.runs), most):
            ended = self._ended(self.study.runs)
            if all(run.id in ended for run in members.runs):  # since, in a group that has some of the same runs
                continue
            self.monitor.remaining([run for run in self.study.runs if run.id not in ended])
            if self.hosts.wish.asked:
                return False
            outcome = self._train(hardware, members, ended)
            if not outcome:
                return outcome
            write_csv(self.store)
        return True

    def _ended(self, runs: Iterable[Run]) -> frozenset[str]:
        return self.store.done((run.id for run in runs), failed=True)

    def _train(self, hardware: Hardware, members: Members, ended: frozenset[str]) -> bool | None:
        """Train a group: as `_train_with`. An error is recorded as the failure of its runs.

        Where processes train together it ends them all, as nobody knows where the others are.
        """
        try:
            fleet, examples = self.assemble(hardware, [run.id for run in members.runs])
            group = Group(*members, fleet, ended, examples, hardware.lanes, self.session)
            trainer = Trainer(group, self.store, self.checkpoint_seconds, self.hosts.wish, self.monitor, self.tracker)
            return trainer.train()
        except (UserError, OSError):  # of the input, or of the disk: not of these runs
            raise
        except Exception as error:
            if self.hosts.several:
                raise
            if out_of_memory(error) and (hardware.lanes if hardware.layout == "vmap" else len(members.runs)) > 1:
                return None
            self._record_failure(members, error)
            return True

    def _record_failure(self, members: Members, error: Exception) -> None:
        message = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        done = self._ended(members.runs)
        failed = [run for run in members.runs if run.id not in done]
        for run in failed:
            record = {"status": "failed", "message": message, "traceback": traceback.format_exc()}
            self.store.write_failure(run.id, describe_settings(run) | {"session": self.session} | record)
        self.monitor.failed(members.id, len(failed), message)


def write_csv(store: Store) -> None:
    """Derive results.csv from all results of a store, in the order in which the runs were asked for."""
    with store.alone():
        store.write_csv(COLUMNS, list(store.read_config()["runs"]))


def execute(
    study: Study, settings: StudyConfig, store: Store, hosts: Hosts, hardware: Hardware,
    read: Callable[[str], Arrays],
) -> Outcome:
    """Train every run of the study that has no result yet and that no other worker trains.

    Raises:
      UserError: the study was begun on other data, or with another number of lanes.
    """
    sparse = any(run.problem.slots for run in study.runs)
    session = open_session(store, hardware, sparse)
    if sparse:
        tell_of_kernel(hardware)
    if settings.retry_failed:
        store.forget_failures(run.id for run in study.runs)
    write_csv(store)
    shorter = Shorter(store, store.read_config()["runs"])
    ended = store.done((run.id for run in study.runs), failed=True)
    if notice := shorter.notice(run for run in study.runs if run.id not in ended):
        print(f"note: {notice}", file=sys.stderr)
    with Monitor(hardware.description) as monitor:
        loader = make_loader(settings, hardware, read, partial(same_data, store))
        worker = Worker(
            study, store, hardware, hosts, session, Assembler(study, hosts, loader), shorter,
            settings.checkpoint_seconds, monitor, track(settings.tracker, store.root),
        )  # fmt: skip
        turn = in_turn(study.cohorts, settings.shard, settings.takeover)
        held = work_through(turn, store, worker.left, worker.train)
    return Outcome(held is None, held or {})
