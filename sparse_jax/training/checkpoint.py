"""Checkpoints that a kill, a full disk or a flipped bit cannot turn into a wrong result.

Orbax commits a step atomically. But on restore it returns flipped bits as they are, pads or
truncates another number of runs, and casts dtypes, all silently. So each step carries a digest of
its content and a description of its leaves, and only a step that agrees with both is restored.
"""

import contextlib
import gc
import hashlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import AbstractMesh
from orbax.checkpoint.checkpoint_managers import preservation_policy

from sparse_jax.training.cohort import is_key

PyTree = Any
DAMAGED = "its content differs from its digest"


def digest(tree: PyTree) -> str:
    """blake2b over path, dtype, shape and bytes of every leaf, as 32 hexadecimal digits.

    The same in every process and for every sharding. Leaves are jax or NumPy arrays that this
    process can address in full; a typed PRNG key counts by its `key_data`.
    """
    return _digest(by_path(tree))


def _digest(leaves: Iterable[tuple[str, Any]]) -> str:
    content = hashlib.blake2b(digest_size=16)
    for path, leaf in leaves:
        array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        content.update(f"{path} {array.dtype} {array.shape};".encode())
        content.update(array.tobytes())
    return content.hexdigest()


def by_path(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a tree in its order, each with its path as text."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


class Checkpoints:
    """The latest steps of one cohort in one folder, written in the background by Orbax.

    A context manager: leaving it waits for the last write. One process at a time may hold a
    folder, because opening it removes what an interrupted write left behind.

    Attributes:
      directory: absolute folder, created if absent; one subfolder a step.
    """

    def __init__(self, directory: Path, keep: int):
        """Open `directory`, keeping the `keep` newest steps; nothing is read yet."""
        silence_orbax()
        self.directory = Path(directory).absolute()
        self._unusable: list[int] = []
        self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(multiprocessing_options=by_itself()),
                "meta": ocp.JsonCheckpointHandler(multiprocessing_options=by_itself()),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(keep),
                cleanup_tmp_directories=True,
                create=False,  # else it would wait for all processes
                multiprocessing_options=by_itself(),
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def save(self, step: int, state: PyTree, meta: dict) -> None:
        """Copy `state` and start writing it; `state` may be donated as soon as this returns.

        Waits for the write before it. The steps that `restore` refused are renamed first, to
        `unusable-<step>-<time>`, so that they neither block a step nor count as the newest.

        Args:
          step: greater than every step that is kept.
          state: tree of arrays that this process can address in full.
          meta: anything that JSON can hold.

        Raises:
          ValueError: `step` is not newer than the newest one kept.
          OSError: the write before this one failed, or this one could not start.
        """
        meta = json.loads(json.dumps(meta))
        record = {"digest": seal(step, by_path(state), meta), "leaves": _leaves(state), "meta": meta}
        self.wait()
        self._set_unusable_aside()
        newest = self._manager.latest_step()
        if newest is not None and step <= newest:
            raise ValueError(f"{self.directory}: step {step} is not newer than step {newest}")
        stored = ocp.args.StandardSave(jax.tree.map(_without_keys, state))
        items = ocp.args.Composite(state=stored, meta=ocp.args.JsonSave(record))
        with self._failures_named():
            self._manager.save(step, args=items, force=True)

    def restore(self, like: PyTree | Callable[[dict], PyTree]) -> tuple[int, PyTree, dict] | None:
        """Read the newest step that is whole and fits `like`.

        Every newer step is passed over with one warning that names it and the reason. The disk is
        not changed.

        Args:
          like: tree of arrays or `jax.ShapeDtypeStruct`, or a function of a step's meta that gives it. Paths, shapes
            and dtypes have to be equal to those saved; a leaf is placed by its sharding, or is a NumPy array if it has
            none.

        Returns:
          (step, state, meta) as they were saved, or None if no step is usable.

        Raises:
          ValueError: a sharding of `like` is over an abstract mesh, so without devices.
        """
        self.wait()
        template = None if callable(like) else jax.tree.map(_checked, like)
        self._unusable = []
        with debris_silenced():
            for step in sorted(self._manager.all_steps(), reverse=True):
                try:
                    return step, *self._read(step, like if template is None else template)
                except Exception as error:  # damage surfaces as any type, also from C++
                    self._pass_over(step, error)
        return None

    def wait(self) -> None:
        """Block until the last step is on disk. Raises OSError if writing it failed."""
        with self._failures_named():
            self._manager.wait_until_finished()

    def keep_newest(self) -> None:
        """Wait as `wait` does, then delete all steps but the newest: the training is over."""
        self.wait()
        for step in sorted(self._manager.all_steps())[:-1]:
            self._manager.delete(step)

    def close(self) -> None:
        """Wait as `wait` does, then free the threads, also if the last write failed."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _read(self, step: int, template: PyTree | Callable[[dict], PyTree]) -> tuple[PyTree, dict]:
        items = ocp.args.Composite(meta=ocp.args.JsonRestore())
        record = self._manager.restore(step, args=items)["meta"]
        if callable(template):
            template = jax.tree.map(_checked, template(record["meta"]))
        saved, wanted = record["leaves"], _leaves(template)
        if saved != wanted:
            path = min(path for path, _ in saved.items() ^ wanted.items())
            raise ValueError(f"{path} is {saved.get(path)}, expected {wanted.get(path)}")
        items = ocp.args.Composite(state=ocp.args.StandardRestore(jax.tree.map(_target, template)))
        stored = self._manager.restore(step, args=items)["state"]
        state = jax.tree.unflatten(
            jax.tree.structure(template), map(with_keys, jax.tree.leaves(stored), wanted.values())
        )
        if seal(step, by_path(state), record["meta"]) != record["digest"]:
            raise ValueError(DAMAGED)
        return state, record["meta"]

    def _pass_over(self, step: int, error: Exception) -> None:
        pass_over(self.directory / str(step), error)
        self._unusable.append(step)

    def _set_unusable_aside(self) -> None:
        for step in self._unusable:
            folder = self.directory / str(step)
            folder.rename(self.directory / f"unusable-{step}-{time.time_ns()}")
        if self._unusable:
            self._unusable = []
            self._manager.reload()

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._manager.reload()  # orbax has forgotten the steps it did not come to delete
            raise OSError(f"cannot write checkpoints to {self.directory}: {error}") from error


def by_itself() -> ocp.options.MultiprocessingOptions:
    """What tells Orbax that this process reads and writes alone, also where it trains with others."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process_{index}"
    )


@contextlib.contextmanager
def debris_silenced() -> Iterator[None]:
    """Bury in silence the threads, tasks and coroutines that Orbax leaves behind a failed read."""
    asyncio = logging.getLogger("asyncio")
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    asyncio.disabled = True
    try:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            yield
            gc.collect()
    finally:
        asyncio.disabled = False
        sys.unraisablehook = hook


def _leaves(tree: PyTree) -> dict[str, str]:
    """Path -> dtype and shape, for example "['kernel']" -> "float32[784, 300]"."""
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in by_path(tree)}


def _without_keys(leaf):
    """A leaf as it is stored: Orbax cannot write typed keys where processes train together."""
    return np.asarray(jax.random.key_data(leaf)) if is_key(leaf) else leaf


def with_keys(stored, description: str):
    """A leaf as it was before it was stored, by what `_leaves` says of it."""
    return jax.random.wrap_key_data(stored) if description.startswith("key<") else stored


def _checked(leaf) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if isinstance(getattr(sharding, "mesh", None), AbstractMesh):
        raise ValueError(f"{sharding} of `like` names no devices")
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _target(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct | np.ndarray:
    """What Orbax is to restore: an array on devices if they are named."""
    raw = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    if leaf.sharding is None:
        return np.empty(raw.shape, raw.dtype)
    return jax.ShapeDtypeStruct(raw.shape, raw.dtype, sharding=leaf.sharding)


def seal(step: int, leaves: Iterable[tuple[str, Any]], meta: dict) -> str:
    """The digest of one step: its number and its meta are sealed with the leaves of its state, by path and in order."""
    text = np.frombuffer(json.dumps([step, meta], sort_keys=True).encode(), np.uint8)
    return _digest([("['meta']", text), *((f"['state']{path}", leaf) for path, leaf in leaves)])


def pass_over(folder: Path, error: Exception) -> None:
    """Warn in one line that a step is unusable."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    logging.getLogger(__name__).warning("checkpoint %s is passed over: %s", folder, reason)


def silence_orbax() -> None:
    """Keep what Orbax logs off the console; what matters of it reaches the caller as an exception."""
    logging.getLogger("absl").addFilter(_not_from_orbax)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return "/orbax/" not in record.pathname
