"""Several processes that train together, on one machine or on many: one leads, the others do what it announces.

The first process has the study, the workdir and every decision: what to train, for how many steps, when to save, when
to stop. It announces each piece of work on the devices, and all processes then do it; so they never disagree about
what comes next. What is announced are names and numbers, as JSON.
"""

import collections
import json
import sys
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from sparse_jax.config import ALONE, AUTO, StudyConfig
from sparse_jax.errors import UserError
from sparse_jax.training.cohort import is_key

END = "end"  # the last announcement, with an exit status
HEARTBEAT_SECONDS = 30  # after which a process that is silent counts as lost; where sockets break it is known at once
_LONGEST_PROBLEM = 400  # characters
_RECORD = 4096  # bytes, of a problem and a mark


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

    def dismiss(self, status: int) -> None:
        """Let the others end with an exit status, and part from them."""
        self.announce(END, status)
        self.part()

    def part(self) -> None:
        """Part from the others, when all do; JAX would do it at the end of the process, if that is a quiet one."""
        if self.several:
            jax.distributed.shutdown()

    def order(self) -> list[Any]:
        """What the leading process announces next."""
        return json.loads(_send(None))

    def listen(self) -> None:
        """Wish to stop in every process if one of them does. Called by all of them."""
        if self.several and multihost_utils.process_allgather(np.bool_(self.wish.asked)).any():
            self.wish.asked = True

    def agree(self, problem: str | None, mark: str) -> None:
        """Compare what several processes have made, each for itself. Called by all of them.

        Args:
          problem: what kept this process from making it; None if nothing did.
          mark: short, and equal in all processes if what they made is.

        Raises:
          UserError: some process has a problem, or the marks differ.
        """
        text = json.dumps([problem and problem[:_LONGEST_PROBLEM], mark]).encode()
        record = np.frombuffer(text.ljust(_RECORD), np.uint8)
        found = [json.loads(bytes(row)) for row in multihost_utils.process_allgather(record)]
        for index, (theirs, _) in enumerate(found):
            if theirs is not None:
                raise UserError(theirs if index == 0 else f"process {index}: {theirs}")
        if len({other for _, other in found}) > 1:
            raise UserError("the processes differ in the data, the settings or the memory that they have")

    def fetch(self, tree: Any) -> Any:
        """`tree` on this host, with the parts that lie on the devices of others. Called by all processes."""
        return jax.tree.map(_gathered, tree) if self.several else jax.device_get(tree)

    def shared(self, tree: Any) -> Any:
        """`tree` of the leading process, in all of them; the others give its shapes and dtypes."""
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
        "process_id": study.process_id, "cluster_detection_method": "deactivate",
    }  # fmt: skip
    if asked.get("process_id") == 0:
        print(f"waiting for {study.num_processes - 1} more at {study.coordinator}", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(**asked, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--coordinator={study.coordinator}: {_reason(study, error)}") from None
    if len({*collections.Counter(device.process_index for device in jax.devices()).values()}) > 1:
        raise UserError("the processes have different numbers of devices: on CPU name them, --cpu_devices=N")
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


def _same(array: jax.Array) -> jax.Array:
    return array


def _gathered(leaf: jax.Array) -> np.ndarray | jax.Array:
    """An array of a mesh that several processes have; for a moment it lies on every device."""
    if is_key(leaf):
        return jax.random.wrap_key_data(_gathered(jax.random.key_data(leaf)))
    everywhere = jax.NamedSharding(leaf.sharding.mesh, jax.P())
    return np.asarray(jax.jit(_same, out_shardings=everywhere)(leaf).addressable_data(0))


def _from_first(leaf: Any) -> np.ndarray | jax.Array:
    """The array of the leading process, by its bytes: sums, which the others are sent, would lose the sign of zeros."""
    if is_key(leaf):
        of = jax.eval_shape if isinstance(leaf, jax.ShapeDtypeStruct) else lambda function, keys: function(keys)
        return jax.random.wrap_key_data(_from_first(of(jax.random.key_data, leaf)))
    known = not isinstance(leaf, jax.ShapeDtypeStruct)
    content = np.asarray(leaf).tobytes() if known else bytes(leaf.size * leaf.dtype.itemsize)
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(content, np.uint8))
    return np.asarray(sent).view(leaf.dtype).reshape(leaf.shape)
