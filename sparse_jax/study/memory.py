"""How much memory a run takes while it trains. Imports no jax."""

import math

from sparse_jax.config import OPTIMIZER_SLOTS
from sparse_jax.study.grid import Run

LINK_INTEGERS = 3  # of a slot: output, input, slot by output


def bytes_per_run(run: Run) -> int:
    """Memory of one run while it trains: parameters, gradients, slots, the best network, the average, masks, links."""
    slots, networks = run.problem.slots, 1 + (run.problem.validation > 0) + (run.config.ema > 0)
    weights = sum(slots.get(name, math.prod(shape)) for name, shape in run.problem.kernels.items())
    masked = sum(slots.get(name, math.prod(run.problem.kernels[name])) for name in run.problem.masked)
    links = networks * sum(LINK_INTEGERS * n for n in slots.values())
    return 4 * (1 + OPTIMIZER_SLOTS[run.config.optimizer] + networks) * weights + 4 * links + masked
