"""The trained weights of a run as the first ones of another, as that one executes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sparse_jax.config import TRAINED
from sparse_jax.errors import UserError
from sparse_jax.sparse.layer import LINKS
from sparse_jax.study.grid import Run
from sparse_jax.study.mask_file import MOST, Topology, as_pairs
from sparse_jax.study.trained import FINAL, Trained, load, matrix
from sparse_jax.topology.masks import put, select
from sparse_jax.training.parts import links_of
from sparse_jax.training.snapshot import Snapshot


def trained_network(run: Run, masks: Topology, read: Callable[[Path], Snapshot | None]) -> dict[str, Any]:
    """Parameters and other variables that a run begins with; empty unless it names a trained run.

    Args:
      run: that begins.
      masks: its first ones, of the layers that it executes sparsely.
      read: `trained.read_group`, which may remember.

    Raises:
      UserError: the weights are gone, or a layer is too large.
    """
    if run.lent.kind != TRAINED:
        return {}
    trained = load(run.lent.lender, FINAL, read)
    kernels, slots = dense_kernels(trained), run.problem.slots
    values = {name: _at_slots(kernels[name], masks[name], count) for name, count in slots.items()}
    state = {name: value for name, value in trained.model_state.items() if name != LINKS}
    return {"params": put(trained.params, kernels | values), "model_state": state}


def dense_kernels(trained: Trained) -> dict[str, np.ndarray]:
    """All kernels in the order of the layers, zero where a connection is absent. Raises UserError for large ones."""
    linked = {name: _dense(trained, name) for name in links_of(trained.model_state)}
    return select(trained.params, trained.kernels) | linked


def _dense(trained: Trained, name: str) -> np.ndarray:
    """float32[inputs, outputs] of a layer that was executed sparsely."""
    inputs, outputs = trained.kernels[name]
    if inputs * outputs > MOST:
        raise UserError(
            f"{trained.place.path}: {name} of {inputs:,} × {outputs:,} is too large for a matrix of its weights: "
            "begin with other --initial_weights"
        )
    return matrix(trained, name).toarray().T


def _at_slots(kernel: np.ndarray, mask: Any, slots: int) -> np.ndarray:
    """float32[slots], the weights of the connections in their order, then zeros."""
    pairs = as_pairs(mask)
    return np.pad(kernel[pairs.inputs, pairs.outputs], (0, slots - pairs.inputs.size))
