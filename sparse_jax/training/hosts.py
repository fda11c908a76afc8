"""Several processes that train together, on one machine or on many: one leads, the others do what it announces.

The first process has the study, the workdir and every decision: what to train, for how many steps, when to save, when
to stop. It announces each piece of work on the devices, and all processes then do it; so they never disagree about
what comes next. What is announced are names and numbers, as JSON.
"""

import json
import sys
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from sparse_jax.config import ALONE, AUTO, StudyConfig
from sparse_jax.errors import UserError

END = "end"  # the last announcement, with an exit status
HEARTBEAT_SECONDS = 30  # after which a process that is silent counts as lost; where sockets break it is known at once
_LONGEST_PROBLEM = 400  # bytes


class Wish(Protocol):
    """Of a process to stop."""

    asked: bool


class Hosts(NamedTuple):
    """The processes that train together, as seen by one of them."""

    count: int
    index: int
    wish: Wish

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides and writes."""
        return self.index == 0

    def announce(self, *order: Any) -> None:
        """Tell the others what to do next; nothing where there are none, or where this process was told."""
        if self.several and self.leads:
            _send(json.dumps(order).encode())

    def order(self) -> list[Any]:
        """What the leading process announces next."""
        return json.loads(_send(None))

    def listen(self) -> None:
        """Wish to stop in every process if one of them does. Called by all of them."""
        if self.several and multihost_utils.process_allgather(np.bool_(self.wish.asked)).any():
            self.wish.asked = True

    def agree(self, problem: str | None, mark: str) -> None:
        """Compare what the processes have made, each for itself. Called by all of them.

        Args:
          problem: what kept this process from making it; None if nothing did.
          mark: equal in all processes if what they made is.

        Raises:
          UserError: some process has a problem, or the marks differ.
        """
        if not self.several:
            if problem is not None:
                raise UserError(problem)
            return
        text = json.dumps([problem and problem[:_LONGEST_PROBLEM], mark]).encode()[: 2 * _LONGEST_PROBLEM]
        record = np.frombuffer(text.ljust(2 * _LONGEST_PROBLEM), np.uint8)
        found = [json.loads(bytes(row)) for row in multihost_utils.process_allgather(record)]
        for index, (theirs, _) in enumerate(found):
            if theirs is not None:
                raise UserError(theirs if index == 0 else f"process {index}: {theirs}")
        if len({other for _, other in found}) > 1:
            raise UserError("the processes differ in the data, the settings or the memory that they have")

    def fetch(self, tree: Any) -> Any:
        """`tree` on this host, with the parts that lie on the devices of others. Called by all processes."""
        return _gathered(tree) if self.several else jax.device_get(tree)

    def shared(self, tree: Any) -> Any:
        """`tree` of the leading process; the others give arrays of its shapes and dtypes. Called by all of them."""
        return jax.tree.map(_from_first, tree) if self.several else tree


def alone(wish: Wish) -> Hosts:
    """A process that has no others beside it."""
    return Hosts(1, 0, wish)


def connect(study: StudyConfig, wish: Wish) -> Hosts:
    """Meet the other processes of a training. To be called before any computation.

    Raises:
      UserError: they are not found.
    """
    if study.coordinator == ALONE:
        return alone(wish)
    jax.config.update("jax_enable_preemption_service", False)  # it would take our signals
    asked = {} if study.coordinator == AUTO else {
        "coordinator_address": study.coordinator, "num_processes": study.num_processes,
        "process_id": study.process_id,
    }  # fmt: skip
    if asked.get("process_id") == 0:
        print(f"waiting for {study.num_processes - 1} more at {study.coordinator}", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(**asked, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--coordinator={study.coordinator}: {_reason(study, error)}") from None
    return Hosts(jax.process_count(), jax.process_index(), wish)


def _reason(study: StudyConfig, error: Exception) -> str:
    if study.coordinator == AUTO and isinstance(error, ValueError):
        return (
            "neither SLURM, Open MPI nor a TPU pod is found here; name HOST:PORT, with --num_processes and --process_id"
        )
    return f"the processes did not meet: {(str(error).splitlines() or [type(error).__name__])[0]}"


def _send(message: bytes | None) -> bytes:
    """The message of the leading process; None stands for it in the others."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(message or b""))))
    room = 1 << max(size - 1, 255).bit_length()  # few sizes, so few programs
    buffer = np.frombuffer((message or b"").ljust(room), np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(buffer))[:size])


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _same(tree: Any) -> Any:
    return tree


def _gathered(tree: Any) -> Any:
    """Arrays of a mesh that several processes have, in one program; of typed keys their data are sent."""
    raw = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)
    mesh = next(leaf.sharding.mesh for leaf in jax.tree.leaves(raw) if isinstance(leaf.sharding, jax.NamedSharding))
    everywhere = jax.jit(_same, out_shardings=jax.NamedSharding(mesh, jax.P()))(raw)

    def on_host(leaf, sent):
        array = np.asarray(sent.addressable_data(0))
        return jax.random.wrap_key_data(array) if _is_key(leaf) else array

    return jax.tree.map(on_host, tree, everywhere)


def _from_first(leaf: Any) -> np.ndarray | jax.Array:
    if _is_key(leaf):
        return jax.random.wrap_key_data(_from_first(jax.random.key_data(leaf)))
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(leaf)))
