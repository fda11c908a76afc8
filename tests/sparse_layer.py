"""Random sparse layers, what their products should be, and the formulations there are."""

import numpy as np
import pytest

from sparse_jax.sparse import build
from sparse_jax.sparse.links import Links, make_links
from sparse_jax.sparse.products import FORMULATIONS

PRESENT = [name for name in FORMULATIONS if name == "jax" or build.kernel().prefix]
each_formulation = pytest.mark.parametrize("formulation", PRESENT)
needs_kernel = pytest.mark.skipif("kernel" not in PRESENT, reason=str(build.kernel().reason))


class Layer:
    """A layer with `n` random connections, some of them to a few units only, and its products in float64."""

    def __init__(self, n_in, n_out, n, batch, spare=0, seed=0):
        rng = np.random.default_rng(seed)
        order = np.concatenate([rng.permutation(n_in * n_out // 3), np.arange(n_in * n_out // 3, n_in * n_out)])
        positions = np.sort(order[:n])
        self.shape, self.n, self.capacity = (n_in, n_out), n, n + spare
        self.inputs, self.outputs = (
            np.concatenate([part, rng.integers(0, 99, spare)]).astype(np.int32)  # spare slots may hold anything
            for part in np.divmod(positions, n_out)
        )
        self.values = rng.normal(size=self.capacity).astype(np.float32)
        self.x = rng.normal(size=(n_in, batch)).astype(np.float32)
        self.dy = rng.normal(size=(n_out, batch)).astype(np.float32)

    def links(self, formulation=None) -> Links:
        """By one formulation, or the quickest."""
        return make_links(self.inputs, self.outputs, self.n, self.shape, formulation)

    @property
    def at(self):
        """Where in a dense matrix the connections are."""
        return self.inputs[: self.n], self.outputs[: self.n]

    def expected(self):
        """(y, dvalues, dx), dense and in float64."""
        weights = np.zeros(self.shape)
        weights[self.at] = self.values[: self.n]
        dvalues = np.zeros(self.capacity)
        dvalues[: self.n] = (self.x @ self.dy.T.astype(float))[self.at]
        return weights.T @ self.x, dvalues, weights @ self.dy
