"""Fleets from the runs of a group: compiled programs, data and settings on the devices, the same in every process."""

import functools
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sparse_jax.config import RunConfig
from sparse_jax.errors import UserError
from sparse_jax.study.fleet import Fleet
from sparse_jax.study.grid import Study
from sparse_jax.study.group import hyper_params
from sparse_jax.study.loader import Loaded, feed
from sparse_jax.study.trained import read_group
from sparse_jax.training.checkpoint import digest
from sparse_jax.training.cohort import make_cohort, padded, place, stacked
from sparse_jax.training.hardware import Hardware
from sparse_jax.training.hosts import Hosts
from sparse_jax.training.state import TrainFns
from sparse_jax.training.train import make_train

ASSEMBLE = "assemble"


class Assembled(NamedTuple):
    """A fleet, and what results say of its data."""

    fleet: Fleet
    examples: np.ndarray  # int[classes], of the test part


class Assembler:
    """Makes the fleets of a study. Groups of one cohort that are as wide share their compiled functions,
    which are dropped before those of another."""

    def __init__(self, study: Study, hosts: Hosts, loader: Callable[[RunConfig, jax.sharding.Mesh], Loaded]) -> None:
        self._runs = {run.id: run for run in study.runs}
        self._cohorts = {run.id: cohort.id for cohort in study.cohorts for run in cohort.runs}
        self._hosts, self._loader = hosts, loader
        self._programs: dict[int, TrainFns] = {}  # by width
        self._of: tuple[str, int] | None = None  # the cohort and the width of its lanes, of these

    def __call__(self, hardware: Hardware, runs: Sequence[str]) -> Assembled:
        """The fleet of some runs of a cohort, by their ids. Where processes train together all of them make it.

        Raises:
          UserError: what it begins with is not there, or not the same everywhere.
        """
        self._hosts.announce(ASSEMBLE, hardware.lane_width, list(runs))
        if not self._hosts.several:
            return self._assembled(hardware, runs)[0]
        assembled, problem, mark = None, None, ""
        try:
            assembled, mark = self._assembled(hardware, runs)
        except UserError as error:
            problem = str(error)
        except Exception as error:
            traceback.print_exc()
            problem = f"{type(error).__name__}: {error}"
        self._hosts.agree(problem, mark)
        return assembled

    def _assembled(self, hardware: Hardware, ids: Sequence[str]) -> tuple[Assembled, str]:
        """The fleet, and a mark that is equal in all processes if it is."""
        runs = [self._runs[run_id] for run_id in ids]
        mesh, width = hardware.place(len(runs))
        loaded = self._loader(runs[0].config, mesh)
        read = functools.cache(read_group)  # lenders share groups
        hyper = stacked([hyper_params(run, read) for run in runs])
        source = feed(loaded, runs[0], padded(hyper.seed, width), mesh)
        fns = self._fns(hardware, ids[0], mesh, width)
        fleet = Fleet(fns, place(hyper, width, mesh), source, mesh, len(runs), self._hosts)
        mark = digest((loaded.host.x, loaded.host.y, hyper)) if self._hosts.several else ""
        return Assembled(fleet, loaded.examples), f"{mark} {hardware.description} {source.description}"

    def _fns(self, hardware: Hardware, run_id: str, mesh: jax.sharding.Mesh, width: int) -> TrainFns:
        of = self._cohorts[run_id], hardware.lane_width
        if of != self._of:
            self._programs, self._of = {}, of
            jax.clear_caches()  # jax keeps what it compiled: a hundred megabytes and two hundred memory maps a cohort
        if width not in self._programs:
            run = self._runs[run_id]
            fns = make_train(run.config, run.problem, batch_devices=hardware.batch_devices)
            self._programs[width] = make_cohort(fns, hardware.layout, mesh)
        return self._programs[width]
