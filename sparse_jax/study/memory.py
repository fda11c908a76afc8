"""How much memory a run takes while it trains, and whether there was too little. Imports no jax."""

import math

from sparse_jax.config import OPTIMIZER_SLOTS
from sparse_jax.models.shapes import OUTLINES
from sparse_jax.study.grid import Run

ACTIVATION_COPIES = 4  # of what a layer puts out: before and after its function, and the gradients there
LINK_INTEGERS = 3  # of a slot: output, input, slot by output


def bytes_per_run(run: Run) -> int:
    """Memory of one run while it trains: parameters, gradients, slots, the best network, the average, masks, links."""
    slots, networks = run.problem.slots, 1 + (run.problem.validation > 0) + (run.config.ema > 0)
    weights = sum(slots.get(name, math.prod(shape)) for name, shape in run.problem.kernels.items())
    masked = sum(slots.get(name, math.prod(run.problem.kernels[name])) for name in run.problem.masked)
    links = networks * sum(LINK_INTEGERS * n for n in slots.values())
    return 4 * (1 + OPTIMIZER_SLOTS[run.config.optimizer] + networks) * weights + 4 * links + masked


def bytes_per_batch(run: Run) -> int:
    """Memory of a batch of one run between the forward and the backward pass, by what its layers put out."""
    applications = OUTLINES[run.config.model].applications(run.config, run.problem.input_shape)
    outputs = sum(applications[name] * shape[-1] for name, shape in run.problem.kernels.items())
    return 4 * ACTIVATION_COPIES * run.config.batch_size * outputs


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the host, has no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
