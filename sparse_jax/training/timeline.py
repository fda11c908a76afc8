"""When things happen in a run: the host counts steps, the compiled programs do them."""

import math
from fractions import Fraction

from sparse_jax.config import RunConfig
from sparse_jax.training.problem import Problem


def period(config: RunConfig) -> int:
    """Steps from one update to the next: the interval, less what a method that rewinds goes back."""
    return config.interval - (config.rewind_to or 0)


def rate_steps(config: RunConfig, problem: Problem) -> int:
    """Steps that the learning rate's course takes: the training; up to the first pruning if a method goes back."""
    return problem.steps if config.levels is None else config.interval


def stop_step(config: RunConfig, problem: Problem) -> int:
    """The first step at which no update is made any more: the stop fraction of training, rounded up."""
    if config.levels is not None:
        return config.interval + (config.levels - 1) * period(config) + 1
    return math.ceil(Fraction(str(config.stop_fraction)) * problem.steps)


def level_steps(problem: Problem, levels: int, rewind_to: int) -> int:
    """Steps of training to the first of `levels` prunings, after each of which all but `rewind_to` are made again.

        T + levels (T − rewind_to) ≤ steps; what does not divide is left to the last level
    """
    return (problem.steps + levels * rewind_to) // (levels + 1)


def update_due(config: RunConfig, problem: Problem, step: int) -> bool:
    """Whether the topology is updated at `step`: every interval, after the start and before the stop."""
    if config.interval is None:
        return False
    since_first = step - config.interval
    return since_first >= 0 and since_first % period(config) == 0 and step < stop_step(config, problem)


def evaluation_due(problem: Problem, step: int) -> bool:
    """Whether the run is evaluated at `step`: after every epoch, before an update at the same step."""
    return step % problem.steps_per_epoch == 0


def next_event(config: RunConfig, problem: Problem, step: int) -> int:
    """The first step after `step` at which an evaluation or an update is due, or training ends."""
    epoch = problem.steps_per_epoch
    event = min((step // epoch + 1) * epoch, problem.steps)
    if config.interval is not None:
        passed = max(0, (step - config.interval) // period(config) + 1)
        update = config.interval + passed * period(config)
        if update_due(config, problem, update):
            event = min(event, update)
    return event


def updates(config: RunConfig, problem: Problem) -> int:
    """How many topology updates a run makes."""
    if config.interval is None:
        return 0
    return len(range(config.interval, stop_step(config, problem), period(config)))


def last_update(config: RunConfig, problem: Problem) -> int:
    """The step of the last topology update; 0 if there is none."""
    made = updates(config, problem)
    return config.interval + (made - 1) * period(config) if made else 0
