"""How the runs of a cohort are laid out on the hardware. No other module knows.

Every function of `TrainFns` gets a leading axis of runs on its per-run arguments and results, sharded over
the devices. On each device the runs are vmapped (lanes of one program), or mapped one after the other, which
on CPU is faster and equals each run trained alone bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from sparse_jax.data.batches import Data
from sparse_jax.training.replicas import BATCH
from sparse_jax.training.state import HyperParams, TrainFns

RUN = "run"


def make_mesh(devices: Sequence[jax.Device], batch_devices: int = 1) -> jax.sharding.Mesh:
    """A mesh of the given devices along the axis of runs; `batch_devices` that are neighbours share a batch."""
    grid, auto = np.reshape(np.asarray(devices), (-1, batch_devices)), jax.sharding.AxisType.Auto
    return jax.sharding.Mesh(grid, (RUN, BATCH), axis_types=(auto, auto))


def over_runs(function: Callable, layout: str, mesh: jax.sharding.Mesh, per_run: int) -> Callable:
    """`function` over a leading axis of runs in its first `per_run` arguments; the others are shared.

    Of data that are given in blocks, which have an axis of runs, the block is not shared.
    """

    def local(runs, block, shared):
        def one(run, block):
            data, *rest = shared
            return function(*run, data._replace(block=block), *rest)

        if layout == "vmap":
            return jax.vmap(one)(runs, block)
        return lax.map(lambda pair: one(*pair), (runs, block))

    def sharded(*args):
        runs, (data, *rest) = args[:per_run], args[per_run:]
        specs = (jax.P(RUN), jax.P(RUN), jax.P())
        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=jax.P(RUN), check_vma=False)
        return mapped(runs, data.block, (data._replace(block=None), *rest))

    return sharded


def make_cohort(fns: TrainFns, layout: str, mesh: jax.sharding.Mesh) -> TrainFns:
    """The functions of one run, compiled for many: per-run arguments have a leading axis of runs.

    Args:
      fns: the functions of one run.
      layout: "vmap" or "map"; how the runs share one device.
      mesh: its axis `RUN` divides the number of runs; devices along BATCH share their batches, as `fns` have to know.

    Returns:
      Compiled functions. `steps`, `update` and `validate` consume their state's buffers.
    """

    def compiled(function, per_run, donate=()):
        return jax.jit(over_runs(function, layout, mesh, per_run), donate_argnums=donate)

    return TrainFns(
        init=compiled(fns.init, 1),
        steps=compiled(fns.steps, 2, (0,)),
        update=compiled(fns.update, 2, (0,)),
        evaluate=compiled(fns.evaluate, 2),
        validate=compiled(fns.validate, 1, (0,)),
        update_steps=fns.update_steps,
    )


def abstract_state(cohort: TrainFns, hyper: HyperParams, data: Data, runs: int) -> Any:
    """Shapes and dtypes of the first `runs` of `cohort.init(hyper, data)`, without computing it."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((runs, *leaf.shape[1:]), leaf.dtype),
        jax.eval_shape(cohort.init, hyper, data),
    )


def on_host(tree: Any, lanes: slice | np.ndarray) -> Any:
    """The runs in those lanes, on the host: what a checkpoint holds, whatever the devices.

    Taken out on the devices every leaf would be a collective. Of many at once on few cores one device was seen not to
    come to its own within the 40 s after which XLA ends the process.
    """

    def of(leaf):
        return jax.random.wrap_key_data(of(jax.random.key_data(leaf))) if is_key(leaf) else np.asarray(leaf)[lanes]

    return jax.tree.map(of, tree)


def padded(tree: Any, width: int) -> Any:
    """`tree`, with a leading axis of runs, padded to `width` by repeating the last run."""

    def of(leaf):
        if leaf.shape[0] > width:
            raise ValueError(f"{leaf.shape[0]} runs do not fit into {width} lanes")
        index = np.minimum(np.arange(width), leaf.shape[0] - 1)
        return leaf if leaf.shape[0] == width else leaf[index]

    return jax.tree.map(of, tree)


def place(tree: Any, width: int, mesh: jax.sharding.Mesh) -> Any:
    """`tree`, with a leading axis of runs, padded to `width` on the mesh."""
    return put(padded(tree, width), jax.NamedSharding(mesh, jax.P(RUN)))


def is_key(leaf: Any) -> bool:
    """Whether an array is one of typed PRNG keys."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def put(tree: Any, sharding: jax.NamedSharding) -> Any:
    """`tree`, which every process has, on the devices of a sharding."""

    def shards(leaf):
        if is_key(leaf):
            return jax.random.wrap_key_data(shards(jax.random.key_data(leaf)))
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:  # it is there
            return leaf
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.device_put(tree, sharding) if sharding.is_fully_addressable else jax.tree.map(shards, tree)


def stacked(runs: list[HyperParams]) -> HyperParams:
    """The hyper-parameters of all runs with a leading axis, on the host."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *runs)


def stack(runs: list[HyperParams], width: int, mesh: jax.sharding.Mesh) -> HyperParams:
    """The hyper-parameters of all runs with a leading axis, padded to `width` by repeating the last run."""
    return place(stacked(runs), width, mesh)


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """`tree` on every device of the mesh."""
    return put(tree, jax.NamedSharding(mesh, jax.P()))
