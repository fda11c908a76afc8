"""SMAC3 as a sampler of Optuna (Lindauer et al. 2022, JMLR 23(54)); made anew for every trial, like the others."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import ConfigSpace
import joblib
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from smac import HyperparameterOptimizationFacade, Scenario
from smac.main.exceptions import ConfigurationSpaceExhaustedException
from smac.runhistory import TrialInfo, TrialValue

START = 10  # trials of the Sobol sequence before the first of the model, as many as TPE draws


class SmacSampler(BaseSampler):
    """The facade that SMAC recommends for hyper-parameters: a random forest, expected improvement.

    It is told cost = 1 − accuracy of all that ended, of those stopped the last one. SMAC has no use for what is
    running; to keep it from asking for the like again it is told that this cost as much as the worst.

    Args:
      distributions: by name.
      seed: of the study, for the start; not negative.
      place: of this trial in the study, from 0.
      trial_seed: of this trial, for the model; in [0, 2³²).
    """

    def __init__(self, distributions: dict[str, BaseDistribution], seed: int, place: int, trial_seed: int) -> None:
        self._space = {name: of for name, of in distributions.items() if not of.single()}
        self._seed, self._place, self._trial_seed = seed, place, trial_seed
        self._otherwise = RandomSampler(seed=trial_seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of all settings that there is a choice of; none of a space that was searched to its end."""
        if not search_space:
            return {}
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        ended = [other for other in others if other.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        running = [other for other in others if other.state == TrialState.RUNNING]
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            if self._place < START or not ended:
                found = _start(search_space, folder, self._seed, self._place)
            else:
                costs = [1 - other.value for other in ended]
                costs += [max(costs)] * len(running)
                found = _next(search_space, folder, self._trial_seed, [*ended, *running], costs)
        return {name: _within(search_space[name], value) for name, value in found.items()}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """For what `sample_relative` has no value of."""
        return self._otherwise.sample_independent(study, trial, param_name, param_distribution)


def _scenario(space: dict[str, BaseDistribution], folder: str, seed: int) -> Scenario:
    """All files go to `folder`. The number of trials is not SMAC's business: its bound is one that is never met."""
    configurations = ConfigSpace.ConfigurationSpace(seed=seed)
    for name, of in space.items():
        if isinstance(of, CategoricalDistribution):
            configurations.add(ConfigSpace.Categorical(name, of.choices))
        else:
            configurations.add(ConfigSpace.Float(name, (of.low, of.high), log=of.log))
    return Scenario(configurations, deterministic=True, n_trials=10**9, seed=seed, output_directory=folder)


def _start(space: dict[str, BaseDistribution], folder: str, seed: int, place: int) -> dict[str, Any]:
    """The values of a trial by its place alone."""
    scenario = _scenario(space, folder, seed)
    design = HyperparameterOptimizationFacade.get_initial_design(scenario, n_configs=place + 1)
    found = design.select_configurations()  # without those that came before
    return dict(found[place % len(found)])


def _next(
    space: dict[str, BaseDistribution], folder: str, seed: int, trials: Sequence[FrozenTrial], costs: Sequence[float]
) -> dict[str, Any]:
    """What SMAC asks for after these trials; nothing if it finds nothing new."""
    scenario = _scenario(space, folder, seed)
    smac = HyperparameterOptimizationFacade(
        scenario, initial_design=HyperparameterOptimizationFacade.get_initial_design(scenario, n_configs=0),
        logging_level=False,
    )  # fmt: skip
    for trial, cost in zip(trials, costs, strict=True):
        values = {name: trial.params[name] for name in space}
        configuration = ConfigSpace.Configuration(scenario.configspace, values=values)
        smac.tell(TrialInfo(configuration, seed=0), TrialValue(cost), save=False)
    try:
        with joblib.parallel_config("sequential"):  # the threads of its small forests take as long again as the work
            return dict(smac.ask().config)
    except (StopIteration, ConfigurationSpaceExhaustedException):
        return {}


def _within(of: BaseDistribution, value: Any) -> Any:
    """A value of SMAC as Optuna has it: rounding may lead out of a range."""
    return str(value) if isinstance(of, CategoricalDistribution) else min(max(float(value), of.low), of.high)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """SMAC says nothing."""
    logger = logging.getLogger("smac")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
