"""The runs of a group on their devices: their state, and what is done to it, the same in every process.

`Trainer` decides and writes, a `Fleet` computes. Where several processes train together, the one that leads announces
each call, and the others make it, too: arguments are JSON, and what is returned lies on the host.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_jax.sparse.links import Links
from sparse_jax.topology.masks import Masks
from sparse_jax.topology.rule import Topology
from sparse_jax.training.cohort import RUN, abstract_state, on_host, place
from sparse_jax.training.compaction import capacities, compacted
from sparse_jax.training.feed import Feed, score_part
from sparse_jax.training.hosts import Hosts
from sparse_jax.training.parts import links_of
from sparse_jax.training.replicas import BATCH, fingerprints
from sparse_jax.training.state import Evaluation, HyperParams, Report, RunState, TrainFns


class Counts(NamedTuple):
    """int32[runs] by layer: the connections that are used, and those that are trained."""

    used: dict[str, np.ndarray]
    trained: dict[str, np.ndarray]


@jax.jit
def _counts(topology: Topology) -> Counts:
    def by_run(masks: Masks) -> dict[str, jax.Array]:
        return {name: jnp.sum(mask.reshape(mask.shape[0], -1), axis=1, dtype=jnp.int32) for name, mask in masks.items()}

    return Counts(by_run(topology.masks), by_run(topology.trained))


@jax.jit
def connections_of_inputs(mask: jax.Array, links: Links | None) -> jax.Array:
    """int32[runs, I]: the connections of every input of a layer, of bool[runs, I, O] or of links."""
    return jnp.sum(mask, axis=-1, dtype=jnp.int32) if links is None else jnp.diff(links.input_starts)


class Fleet:
    """The runs of a group while they train.

    Attributes:
      runs: how many there are, without padding.
      update_steps: training steps that an update takes the place of.
      description: where the examples lie, in words.
    """

    def __init__(
        self, fns: TrainFns, hyper: HyperParams, feed: Feed, mesh: jax.sharding.Mesh, runs: int, hosts: Hosts
    ) -> None:
        """Nothing is computed yet.

        Args:
          fns: of the cohort, compiled.
          hyper: with a leading axis of runs, padded.
          feed: of its data.
          mesh: its devices.
          runs: without the padding.
          hosts: the processes that have these devices.
        """
        self._fns, self._hyper, self._feed, self._mesh, self._hosts = fns, hyper, feed, mesh, hosts
        self._state: Any = None
        self.runs, self.update_steps, self.description = runs, fns.update_steps, feed.description

    @property
    def slots(self) -> dict[str, int]:
        """Of the layers that are executed sparsely."""
        return capacities(self._state.model_state)

    def shapes(self) -> RunState:
        """Shapes and dtypes of the first state, without padding."""
        return abstract_state(self._fns, self._hyper, self._feed.like(), self.runs)

    def begin(self) -> None:
        """The state before the first step."""
        self._hosts.announce("begin")
        self._begun(self._fns.init(self._hyper, self._feed.begin()))

    def restore(self, slots: dict[str, int], state: RunState | None = None) -> None:
        """A state that was saved, with so many slots; the processes that do not lead have none."""
        self._hosts.announce("restore", slots)
        given = self._hosts.shared(compacted(self.shapes(), slots) if state is None else state)
        self._begun(place(given, self._hyper.seed.shape[0], self._mesh))

    def _begun(self, state: RunState) -> None:
        self._state, self._hyper = state, self._hyper._replace(network={})  # the state has it
        self._compare_replicas()

    def steps(self, step: int, count: int) -> float:
        """So many optimiser steps from `step` on; the seconds that they took, without the wait for data."""
        self._hosts.announce("steps", step, count)
        data, begun = self._feed.at(step), time.monotonic()
        self._state = jax.block_until_ready(self._fns.steps(self._state, self._hyper, data, np.int32(count)))
        seconds = time.monotonic() - begun
        self._hosts.listen()
        return seconds

    def steps_at_once(self, step: int) -> int:
        """For how many steps from `step` on the data are there."""
        return self._feed.steps(step)

    def update(self, step: int) -> None:
        """One topology update."""
        self._hosts.announce("update", step)
        self._state = self._fns.update(self._state, self._hyper, self._feed.at(step))
        self._compare_replicas()

    def compact(self, slots: dict[str, int]) -> None:
        """As few slots as that."""
        self._hosts.announce("compact", slots)
        self._state = compacted(self._state, slots)

    def connections(self) -> Counts:
        """Of every run and layer, with the padding."""
        self._hosts.announce("connections")
        return self._hosts.fetch(_counts(self._state.topology))

    def validate(self, step: int, inputs: str | None) -> tuple[Report, dict[str, np.ndarray]]:
        """What every run says of itself; of the layer named `inputs` also the connections of each of its inputs."""
        self._hosts.announce("validate", step, inputs)
        self._state, report = self._fns.validate(self._state, self._feed.at(step))
        seen = {}
        if inputs is not None:
            links = links_of(self._state.model_state).get(inputs)
            seen["input_connections"] = connections_of_inputs(self._state.topology.masks[inputs], links)
        return self._hosts.fetch((report, seen))

    def evaluate(self, part: int, best: bool = False) -> Evaluation:
        """What every run, or the best network of every run, does on a part of the data, as `score_part` has it."""
        self._hosts.announce("evaluate", part, best)
        network = (self._state.best.params, self._state.best.model_state) if best else self._state.evaluated
        return score_part(self._fns.evaluate, self._feed, part, network, self._hosts.fetch)

    def saved(self) -> RunState:
        """The state for a checkpoint, without padding."""
        self._hosts.announce("saved")
        return on_host(self._hosts.fetch(self._state) if self._hosts.several else self._state, slice(self.runs))

    def _compare_replicas(self) -> None:
        """Raises RuntimeError if devices that share a batch differ in their network."""
        if self._mesh.shape[BATCH] == 1:
            return
        state = self._state
        network = state.params, state.model_state, state.topology.masks
        found = self._hosts.fetch(fingerprints(network, self._mesh, RUN))[: self.runs]
        if (found != found[:, :1]).any():
            raise RuntimeError("the devices that share a batch differ in the networks that they have")

    def networks(self) -> RunState:
        """The state on the host, without what only training needs."""
        self._hosts.announce("networks")
        self._compare_replicas()
        return self._hosts.fetch(self._state._replace(key=None, opt_state=None))


# what the process that leads announces -> what it and the others do
ORDERS: dict[str, Callable[..., Any]] = {
    "begin": Fleet.begin,
    "restore": Fleet.restore,
    "steps": Fleet.steps,
    "update": Fleet.update,
    "compact": Fleet.compact,
    "connections": Fleet.connections,
    "validate": Fleet.validate,
    "evaluate": Fleet.evaluate,
    "saved": Fleet.saved,
    "networks": Fleet.networks,
}
