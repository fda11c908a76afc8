"""What a study of hyper-parameters does next, as functions of what its trials are, with no memory of their own.

Each makes the study anew in memory, so that a search that was killed goes on as if it had not been.
"""

from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sparse_jax.search.ranges import LOGARITHMIC, NAMES, NUMBERS, Ranges, Values
from sparse_jax.search.storage import quiet

Distributions = dict[str, BaseDistribution]

# what the attributes of a trial say of it
WORKER = "worker"  # who has it in hand
PLACE = "place"  # how many trials of the study its worker knew of, itself not one of them
FOLLOW = "follow"  # how many more its worker asked for, after it
FIRST = "first"  # whether it is the untuned one
SINCE = "since"  # seconds of Unix time, when it was handed out
DIVERGED = "diverged"  # there if it ended without an accuracy
RUNG = "rung "  # and a step: what was decided there, as [whether it stops, what Optuna notes of it]


def valid(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those whose workers knew of all valid ones before: of several that are created at once, only the first.

    A storage only appends, so this never changes for a trial that is there: what was checked for a valid trial, such as
    that there is room for it, holds, though nothing was locked. The others have no effect, and keep nobody from being
    valid.

    Args:
      trials: all that the storage has of the study, by number.
    """
    found = []
    for trial in trials:
        if trial.user_attrs[PLACE] == len(found):
            found.append(trial)
    return found


def members(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of the study: the valid ones, but for those that were given up for others."""
    return [trial for trial in valid(trials) if trial.state != TrialState.FAIL or DIVERGED in trial.user_attrs]


# --- the next trial --------------------------------------------------------------------------------


def _smac(distributions: Distributions, seed: int, place: int) -> BaseSampler:
    from sparse_jax.search.smac_sampler import SmacSampler

    return SmacSampler(distributions, seed, place, mixed(seed, place))


# of one trial: (distributions, seed of the study, place of the trial) -> sampler
SAMPLERS: dict[str, Callable[[Distributions, int, int], BaseSampler]] = {
    "tpe": lambda distributions, seed, place: TPESampler(seed=mixed(seed, place)),
    "random": lambda distributions, seed, place: RandomSampler(seed=mixed(seed, place)),
    "smac": _smac,
}


def mixed(seed: int, place: int) -> int:
    """In [0, 2³²): a seed for the trial at that place, independent of those of other places and seeds."""
    return int(np.random.SeedSequence((seed, place)).generate_state(1)[0])


def distributions_of(ranges: Ranges) -> Distributions:
    """The ranges as Optuna has them, in the order of Values."""
    found = {one: CategoricalDistribution(getattr(ranges, several)) for one, several in NAMES.items()}
    for one, several in NUMBERS.items():
        low, high = getattr(ranges, several)
        found[one] = FloatDistribution(low, high, log=one in LOGARITHMIC)
    return {name: found[name] for name in Values._fields}


def propose(sampler: str, seed: int, ranges: Ranges, trials: Sequence[FrozenTrial]) -> Values:
    """The values of the trial after these.

    TPE is Optuna's with its defaults: multivariate, ten trials at random, running ones taken for bad. Of 3, 5 or 10 at
    random none was better than the others, for 20 and 40 trials of a made-up landscape. It learns from the trials of
    all brackets of Hyperband, where Optuna would keep to those of one, which of some twenty seldom has ten.

    Args:
      sampler: a key of SAMPLERS.
      seed: not negative.
      ranges: to draw from.
      trials: all of the study, as their storage has them.
    """
    distributions = distributions_of(ranges)
    seen = [_seen(trial, distributions) for trial in members(trials)]
    study = _study("", seen, sampler=SAMPLERS[sampler](distributions, seed, len(valid(trials))), pruner=NopPruner())
    return Values(**study.ask(distributions).params)


# --- whether a trial goes on -----------------------------------------------------------------------

# of a study whose trials report at the steps 1 … rungs
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "none": lambda rungs: NopPruner(),
    "hyperband": lambda rungs: HyperbandPruner(min_resource=1, max_resource=rungs),
}


def stops(
    pruner: str, rungs: int, name: str, trials: Sequence[FrozenTrial], number: int
) -> tuple[bool, dict[str, float]]:
    """Whether the pruner stops a trial at the last step that it reported, and what is to be noted of it for later ones.

    Hyperband is Optuna's, with its defaults. Each trial is of a bracket, drawn from the name of the study and the
    number of the trial. Those of the first compare their accuracies at the steps 1, 3, 9, …, those of the second at 3,
    9, … and so on: whoever is not among the better third of those that were there by then stops. As long as fewer
    than three were there, only the best goes on, hence always the first. Of 81 steps there are five brackets, the first
    with more than half of the trials, the last two with one in ten: of twenty trials most compare with few others.

    Args:
      pruner: a key of PRUNERS.
      rungs: the last step.
      name: of the study.
      trials: all of the study, as their storage has them.
      number: of the trial.
    """
    study = _study(name, [_seen(trial, {}) for trial in trials], pruner=PRUNERS[pruner](rungs))
    stop = study.pruner.prune(study, study.get_trials(deepcopy=False)[number])
    return stop, study.get_trials(deepcopy=False)[number].system_attrs


# --- in memory -------------------------------------------------------------------------------------


def _study(name: str, trials: Sequence[FrozenTrial], **parts: BaseSampler | BasePruner) -> optuna.Study:
    with quiet():
        study = optuna.create_study(study_name=name, direction="maximize", **parts)
    study.add_trials(trials)
    return study


def _seen(trial: FrozenTrial, distributions: Distributions) -> FrozenTrial:
    """A trial as samplers and pruners see it; one that failed has accuracy 0, so that they learn to avoid its like.

    Of its values those are seen that `distributions` names: to copy them takes most of the time.
    """
    noted = {}
    for key, value in trial.user_attrs.items():
        if key.startswith(RUNG):
            noted |= value[1]
    failed = trial.state == TrialState.FAIL
    return create_trial(
        state=TrialState.COMPLETE if failed else trial.state, value=0.0 if failed else trial.value,
        params={name: trial.params[name] for name in distributions}, distributions=distributions,
        system_attrs=noted, intermediate_values=trial.intermediate_values,
    )  # fmt: skip
