"""When things happen in a run: the host counts steps, the compiled programs do them."""

import math

from sparse_jax.config import RunConfig
from sparse_jax.training.problem import Problem


def update_due(config: RunConfig, problem: Problem, step: int) -> bool:
    """Whether the topology is updated at `step`: every interval, after the start and before the stop."""
    if config.interval is None or step == 0 or step % config.interval:
        return False
    return step < config.stop_fraction * problem.steps


def evaluation_due(problem: Problem, step: int) -> bool:
    """Whether the run is evaluated at `step`: after every epoch, before an update at the same step."""
    return step % problem.steps_per_epoch == 0


def next_event(config: RunConfig, problem: Problem, step: int) -> int:
    """The first step after `step` at which an evaluation or an update is due, or training ends."""
    epoch = problem.steps_per_epoch
    event = min((step // epoch + 1) * epoch, problem.steps)
    if config.interval is not None:
        update = (step // config.interval + 1) * config.interval
        if update_due(config, problem, update):
            event = min(event, update)
    return event


def last_update(config: RunConfig, problem: Problem) -> int:
    """The step of the last topology update; 0 if there is none."""
    return updates(config, problem) * config.interval


def updates(config: RunConfig, problem: Problem) -> int:
    """How many topology updates a run makes."""
    if config.interval is None:
        return 0
    return len(range(config.interval, math.ceil(config.stop_fraction * problem.steps), config.interval))
