"""When things happen in a run: the host counts steps, the compiled programs do them."""

import math
from fractions import Fraction

from sparse_jax.config import RunConfig
from sparse_jax.training.problem import Problem


def stop_step(config: RunConfig, problem: Problem) -> int:
    """The first step at which no update is made any more: the stop fraction of training, rounded up."""
    return math.ceil(Fraction(str(config.stop_fraction)) * problem.steps)


def update_due(config: RunConfig, problem: Problem, step: int) -> bool:
    """Whether the topology is updated at `step`: every interval, after the start and before the stop."""
    return config.interval is not None and step % config.interval == 0 and 0 < step < stop_step(config, problem)


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


def updates(config: RunConfig, problem: Problem) -> int:
    """How many topology updates a run makes."""
    if config.interval is None:
        return 0
    return len(range(config.interval, stop_step(config, problem), config.interval))


def last_update(config: RunConfig, problem: Problem) -> int:
    """The step of the last topology update; 0 if there is none."""
    return updates(config, problem) * config.interval
