"""When evaluations and updates happen, step by step by hand."""

import dataclasses

import pytest

from sparse_jax.training.timeline import evaluation_due, last_update, next_event, stop_step, update_due, updates
from tests.tiny import make_config, make_tiny_problem


def timeline(interval, stop_fraction, replaced, epochs=3):
    """(evaluations, updates) of a run of 4 steps an epoch, as the host's loop makes them."""
    config = make_config("set", interval=interval, stop_fraction=stop_fraction, epochs=epochs)
    problem = make_tiny_problem(config)
    assert problem.steps_per_epoch == 4
    step, evaluations, moments = 0, [], []
    while step < problem.steps:
        step = next_event(config, problem, step)
        if evaluation_due(problem, step):
            evaluations.append(step)
        if update_due(config, problem, step):
            moments.append(step)
            step += replaced
            if replaced and evaluation_due(problem, step):
                evaluations.append(step)
    assert step == problem.steps
    return evaluations, moments


@pytest.mark.parametrize(
    ("interval", "stop_fraction", "replaced", "moments"),
    [
        (4, 1.0, 0, [4, 8]),  # at an epoch's end, but not at the end of training
        (3, 1.0, 0, [3, 6, 9]),
        (3, 1.0, 1, [3, 6, 9]),  # the update at 3 ends at 4, an epoch's end
        (11, 1.0, 1, [11]),  # takes the place of the last step
        (5, 0.5, 0, [5]),
        (3, 0.5, 0, [3]),  # 6 is the stop
        (2, 0.01, 0, []),
        (None, None, 0, []),
    ],
)
def test_every_epoch_is_evaluated_and_every_interval_updated(interval, stop_fraction, replaced, moments):
    assert timeline(interval, stop_fraction, replaced) == ([4, 8, 12], moments)


@pytest.mark.parametrize("stop_fraction", [0.1, 0.29, 0.3, 0.55, 0.75, 1.0])
@pytest.mark.parametrize("interval", [1, 2, 7, 40])
def test_updates_are_counted_as_they_are_made(interval, stop_fraction):
    config = make_config("set", interval=interval, stop_fraction=stop_fraction, epochs=25)  # 100 steps
    problem = make_tiny_problem(config)
    due = [step for step in range(101) if update_due(config, problem, step)]
    assert stop_step(config, problem) == round(100 * stop_fraction)
    assert updates(config, problem) == len(due)
    assert last_update(config, problem) == max(due, default=0)
    never = dataclasses.replace(config, interval=None)
    assert updates(never, problem) == 0
