"""Where the examples lie while a group of runs trains: on the devices, or on the host, from where batches stream.

The batches of a step are a function of key and step, so the host can make those of the next steps while the devices
train on these. A run that streams sees the batches of a run that has all examples on its device: with the layout
map it is that run bit for bit (but for the last digit of the loss over the training part at the end), with vmap the
two programs may differ in the last bit of a sum.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sparse_jax.data.batches import Block, Data, batch_indices
from sparse_jax.data.splits import Splits
from sparse_jax.training.cohort import RUN, put, replicate
from sparse_jax.training.parts import ORDER
from sparse_jax.training.start import CORRELATED_EXAMPLES
from sparse_jax.training.state import Evaluation, Range

BLOCK_BYTES = 2**26  # of the examples that are sent at once; two blocks are on the way
_WHOLE = 1 << 30  # steps that a feed has at once, where it has them all


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


class Rows(NamedTuple):
    """Some rows of data: [start, stop) of its x and y."""

    data: Data
    start: int
    stop: int


@partial(jax.jit, static_argnames=("steps", "n", "batch_size"))
def _indices(seeds: jax.Array, first: jax.Array, steps: int, n: int, batch_size: int) -> jax.Array:
    """int32[runs, steps · batch_size], the examples of some steps of runs, from their seeds uint32[runs]."""

    def of_run(seed):
        key = jax.random.fold_in(jax.random.key(seed), ORDER)
        return jax.vmap(lambda step: batch_indices(key, step, n, batch_size))(first + jnp.arange(steps)).ravel()

    return jax.vmap(of_run)(seeds)


class Resident:
    """All examples are on the devices."""

    def __init__(self, data: Data, ends: np.ndarray) -> None:
        """`ends`: the rows at which the training, validation and test parts begin, and the number of rows."""
        self._data, self._ends = data, ends
        self.description = f"{_megabytes(data.x.nbytes)} of examples on every device"

    def at(self, step: int) -> Data:
        """The data that training at `step` needs."""
        return self._data

    def like(self) -> Data:
        """The shapes and dtypes of what `at` gives."""
        return self._data

    def begin(self) -> Data:
        """The data that a run begins with: those of step 0, the training part first."""
        return self._data

    def steps(self, step: int) -> int:
        """For how many steps from `step` on `at(step)` has the batches."""
        return _WHOLE

    def rows(self, part: int) -> Iterator[Rows]:
        """The rows of the training (0), validation (1) or test part (2), in pieces."""
        yield Rows(self._data, *self._ends[part : part + 2])


class Streamed:
    """The training part stays on the host; the next block of its batches is made while the last one is trained on."""

    def __init__(self, data: Data, host: Splits, seeds: np.ndarray, batch_size: int, steps: int, mesh: Mesh) -> None:
        """Nothing is sent yet.

        Args:
          data: on the devices, without the training part.
          host: all examples.
          seeds: uint32[runs], of all lanes.
          batch_size: examples a step.
          steps: of the training.
          mesh: the devices along the axis of runs.
        """
        self._data, self._host, self._batch, self._mesh = data, host, batch_size, mesh
        self._seeds = seeds
        step_bytes = host.x[0].nbytes * batch_size * len(seeds)
        self._length = max(1, min(BLOCK_BYTES // step_bytes, steps))
        self._steps, self._blocks = steps, ThreadPoolExecutor(max_workers=1)
        self._ready: dict[int, Future] = {}
        size = _megabytes(host.x[: host.train].nbytes)
        self.description = f"{size} of training examples stream from the host, {self._length:,} steps at once"

    def at(self, step: int) -> Data:
        """The data that training at `step` needs; the block after it is begun."""
        first = min(step, self._steps - 1) // self._length * self._length  # an evaluation at the end needs no batch
        wanted = [start for start in (first, first + self._length) if start < self._steps]
        self._ready = {start: self._ready.get(start) or self._blocks.submit(self._block, start) for start in wanted}
        return self._data._replace(block=self._ready[first].result())

    def begin(self) -> Data:
        """The data that a run begins with: those of step 0, the first of the training part among them."""
        first = self._data._replace(x=self._host.x[:CORRELATED_EXAMPLES], y=self._host.y[:CORRELATED_EXAMPLES])
        return replicate(first, self._mesh)._replace(block=self.at(0).block)

    def like(self) -> Data:
        """The shapes and dtypes of what `at` gives, without making it."""
        runs, rows = len(self._seeds), self._length * self._batch
        x, y = ((array.dtype, array.shape[1:]) for array in (self._host.x, self._host.y))
        examples = (jax.ShapeDtypeStruct((runs, rows, *shape), dtype) for dtype, shape in (x, y))
        return self._data._replace(block=Block(*examples, jax.ShapeDtypeStruct((runs,), np.int32)))

    def steps(self, step: int) -> int:
        """For how many steps from `step` on `at(step)` has the batches."""
        return self._length - step % self._length

    def rows(self, part: int) -> Iterator[Rows]:
        """The rows of the training (0), validation (1) or test part (2), in pieces."""
        host = self._host
        if part:
            start, stop = np.cumsum([0, host.validation, host.test])[part - 1 : part + 1]
            yield Rows(self._data, start, stop)
            return
        size = max(1, min(BLOCK_BYTES // host.x[0].nbytes, host.train))
        for start in range(0, host.train, size):
            at = min(start, host.train - size)  # every piece has one size, so one program
            piece = self._data._replace(x=host.x[at : at + size], y=host.y[at : at + size])
            yield Rows(replicate(piece, self._mesh), start - at, size)

    def _block(self, first: int) -> Block:
        """The batches of the steps from `first` on, on the devices of their runs."""
        index = np.asarray(_indices(self._seeds, np.int32(first), self._length, self._host.train, self._batch))
        firsts = np.full(len(index), first, np.int32)
        block = Block(self._host.x[index], self._host.y[index], firsts)
        return put(block, jax.NamedSharding(self._mesh, jax.P(RUN)))


Feed = Resident | Streamed


def score_part(
    evaluate: Callable[..., Evaluation],
    feed: Feed,
    part: int,
    network: tuple[Any, Any],
    fetch: Callable[[Any], Any] = jax.device_get,
) -> Evaluation:
    """What every run does on a part of the data, piece by piece; on the host.

    Args:
      evaluate: of the cohort.
      feed: of its data.
      part: training (0), validation (1) or test (2).
      network: (params, model_state), with a leading axis of runs.
      fetch: brings what is found to the host.
    """
    found, sizes = [], []
    for data, start, stop in feed.rows(part):
        found.append(fetch(evaluate(*network, data, start, stop)))
        sizes.append(stop - start)
    losses = np.average([one.loss for one in found], 0, sizes) if len(found) > 1 else found[0].loss
    ranges = {
        layer: Range(
            np.minimum.reduce([one.ranges[layer].low for one in found]),
            np.maximum.reduce([one.ranges[layer].high for one in found]),
        )
        for layer in found[0].ranges
    }
    correct, predicted = sum(one.correct for one in found), sum(one.predicted for one in found)
    return Evaluation(losses.astype(np.float32), correct, predicted, ranges)
